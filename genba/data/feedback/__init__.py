"""What people say about predictions: intake, what it amounts to, and what to ask next.

Every row ends as exactly one of these:

- accepted: joined to a prediction; it counts for training and for the triggers;
- duplicate: the same author said the same about the same target before; kept, counted once;
- contradictory: somebody else says otherwise; all are kept, the majority of last words decides,
  and a tie is left out of training and put into the labelling queue; it rings no trigger;
- unknown: no prediction fits; kept, and used as soon as the prediction appears;
- late: the prediction is older than 90 days; it teaches, but rings no trigger;
- rejected: it cannot be understood; reported with its row and what to do, not kept.

Whoever changes their mind is heard last: the newest word of each author counts. What the labels
amount to are lessons (`genba.core.task.Lesson`); in images, with the place that was marked.
"""

from genba.data.feedback.files import read_file
from genba.data.feedback.intake import FeedbackReport, Rejected, Sender, receive
from genba.data.feedback.labels import effective_labels

__all__ = [
    "FeedbackReport",
    "Rejected",
    "Sender",
    "effective_labels",
    "read_file",
    "receive",
]
