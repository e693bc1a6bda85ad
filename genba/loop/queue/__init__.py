"""What to ask people next: the predictions whose label would teach most.

Three things make an answer worth having, each from 0 to 1: the model is unsure (uncertainty), the
sample is like no known case or a channel that has drifted reads what calibration hardly ever saw
(novelty), models or people disagree (disagreement). Their sum is what a label is worth. Of an
episode (consecutive predictions of one entity) only the best is asked, and of samples that look
alike those that stand for the others.
"""

from genba.loop.queue.asking import QueueItem, queue

__all__ = ["QueueItem", "queue"]
