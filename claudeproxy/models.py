"""What belongs to no app: leases that keep a job from running twice at a time."""

from django.db import models


class Lease(models.Model):
    """The right to do something, for a while, by whoever took it."""

    name = models.CharField(max_length=100, primary_key=True)
    owner = models.CharField(max_length=32)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
