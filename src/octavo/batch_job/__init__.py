"""A batch file run to its end: every line read and checked, answered once, written in order.

`source` is the file that comes in, `answers` puts lines to the model, `journal` is what a run that
was killed leaves behind, `job` the run itself. Knows no command line.
"""

from octavo.batch_job.job import BatchJob, Outcome, Summary, pick_model
from octavo.batch_job.source import Source

__all__ = ["BatchJob", "Outcome", "Source", "Summary", "pick_model"]
