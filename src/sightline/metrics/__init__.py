"""What systems and maps are measured by, each beside what knowing nothing would score.

`localisation`   does a heat map lie on the object?  (what looking there *did*: `sightline.lens.check`)
"""
