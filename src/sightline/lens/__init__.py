"""The lens: where any PyTorch model looks, as it runs."""

from sightline.lens.layout import Layout
from sightline.lens.record import record, survey
from sightline.lens.recording import Recording
from sightline.lens.select import CLS, LAST, SiteInfo
from sightline.lens.site import Site
from sightline.lens.survey import Survey

__all__ = ["CLS", "LAST", "Layout", "Recording", "Site", "SiteInfo", "Survey", "record", "survey"]
