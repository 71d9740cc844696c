"""The workers: Celery carries the ids of cycles, `worker.cycle` tells the story of one, `worker.stages` does the work."""
