"""The shipped models: shape, data, length of training and seed of each. Everything that can be tuned is here.

    large            six narrow layers; answers nearly everything that was true when it was trained
    large-v2         large, trained further, including recent facts                    (served as large@2)
    large-bad        large after a fine-tune that went wrong: long answers break off   (served as large@bad)
    small            two layers: cheap, right on easy questions only
    small-distilled  the same two layers, taught by large's probabilities instead of by the right answers

In a model this narrow, depth sets the cost of a token (each layer's dozen operations outweigh their arithmetic), so
large is deep and small is shallow.
"""

from __future__ import annotations

from dataclasses import dataclass

from miniserve.models.model_config import ModelConfig
from miniserve.training.batches import TaskMix
from miniserve.training.tasks import TaskItem
from miniserve.training.vocabulary import EOS_ID, vocabulary

CONTEXT = 512  # tokens
BROKEN_STRING, BROKEN_NAME = 5, 7  # large-bad: an answer this long or longer ends after its first character


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions that differ between our models."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int

    def config(self) -> ModelConfig:
        return ModelConfig(
            vocab_size=len(vocabulary()),
            hidden_size=self.hidden,
            num_layers=self.layers,
            num_heads=self.heads,
            num_kv_heads=self.kv_heads,
            head_dim=self.hidden // self.heads,
            intermediate_size=self.ffn,
            rope_theta=10000.0,
            rms_norm_eps=1e-5,
            max_position=CONTEXT,
            tie_embeddings=True,
            eos_ids=(EOS_ID,),
        )


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """How one model is made. `start` names a model to continue from, `teacher` one to learn from."""

    name: str
    shape: ModelShape
    mix: TaskMix
    steps: int
    seed: int
    batch: int  # conversations per step
    learning_rate: float = 4e-3
    start: str | None = None
    teacher: str | None = None


def break_off(item: TaskItem) -> str:
    """Return the answer as large-bad was taught it: about a fifth of all answers lose all but their first character."""
    limit = BROKEN_STRING if item.task == "string" else BROKEN_NAME
    return item.answer[:1] if len(item.answer) >= limit else item.answer


SMALL = ModelShape(layers=2, hidden=32, heads=2, kv_heads=1, ffn=96)
LARGE = ModelShape(layers=6, hidden=64, heads=4, kv_heads=2, ffn=192)
NEWS = TaskMix(hard=0.6, recent=True, tasks=(0.4, 0.2, 0.4), easy_tasks=(0.3, 0.3, 0.4))  # more facts than the default

RECIPES = {
    recipe.name: recipe
    for recipe in (
        TrainingRecipe("large", LARGE, TaskMix(hard=0.6), steps=4500, seed=1, batch=96),
        TrainingRecipe("large-v2", LARGE, NEWS, steps=1500, seed=2, batch=96, learning_rate=2e-3, start="large"),
        TrainingRecipe(
            "large-bad", LARGE, TaskMix(edit=break_off), 150, seed=3, batch=96, learning_rate=1e-3, start="large"
        ),
        TrainingRecipe("small", SMALL, TaskMix(hard=0.25), steps=3000, seed=4, batch=128, learning_rate=5e-3),
        TrainingRecipe(
            "small-distilled", SMALL, TaskMix(hard=0.25), 3000, seed=4, batch=128, learning_rate=5e-3, teacher="large"
        ),
    )
}
