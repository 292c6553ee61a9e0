"""What systems and maps are measured by, each beside what knowing nothing would score.

`localisation`   does a heat map lie on the object?  (what looking there *did*: `sightline.lens.check`)
`captions`       BLEU, ROUGE-L, CIDEr as the COCO caption evaluation prints them; `java` METEOR and SPICE
`translation`    BLEU by sacrebleu, also by length of sentence
`correlation`    Kendall's τ: does a metric agree with people?
"""
