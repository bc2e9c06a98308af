"""The control of the rotation loss that sees the same images without self-supervision."""

from forgetting.learner import Method
from forgetting.rotation import rows_to_turn, turned_copies


class Augment(Method):
    """Rotated copies of some images join the main loss with their originals' targets."""

    source = "a control"
    words = "control: rotated, no rotation loss"
    uses = ("rotated_images",)
    players = ("classifier", "discriminator", "generator")
    purpose = "rotation"  # the images that the rotation loss would turn

    def draw(self, player, n, step):
        return {"rows": rows_to_turn(player, n, self.rotated_images, self.draws)}

    def extend(self, batch, drawn):
        kinds = [(own, True) for own in batch.real[:1]] + [(own, False) for own in batch.fake[:1]]
        for own, real in kinds:
            rows = own.start + drawn["rows"]
            turned = turned_copies(batch.images[rows])
            batch.add(turned, batch.columns(rows.repeat(3)), real)
