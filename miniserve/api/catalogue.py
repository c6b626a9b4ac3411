"""Which models the edge offers, under which names, and what a name stands for.

    large                        a model; its versions share the traffic
    large@2                      a pin: this version and no other
    default, gpt-4o-mini, ...    an alias: stands for a model or a pin
    auto, ...                    an alias that stands for one of two models: chosen by the question, or by a cascade

What is retired may stay for a while as *deprecated*: it is answered as before, with a header that says since when.
Knows names and tokenizers; which replica serves a model is for routers to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from miniserve.api.backend import ServedModel, TextTokenizer
from miniserve.errors import InvalidRequest, NotFound, SetupError

DEFAULT_MODEL = "default"  # what a body asks for that names no model; without such an alias, the first model
_PROBES = ("Hello, world! 12 + 34 = 46", "<|im_start|>\n\tnaïve — 你好 🙂")


class ModelChooser(Protocol):
    """Chooses between two models by the question (see `policies.routing.model_router.ModelRouter`)."""

    @property
    def small(self) -> str: ...

    @property
    def large(self) -> str: ...

    def choose(self, question: str) -> str: ...


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One name that `/v1/models` lists: the model behind it, and what it is another name for, if it is one."""

    name: str
    model: ServedModel
    stands_for: str | None = None


@dataclass(frozen=True, slots=True)
class ModelNames:
    """The names beside those of the models themselves. `deprecated`: seconds since 1970, from which on each is."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    by_question: Mapping[str, ModelChooser] = field(default_factory=dict)
    cascades: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # the models that may come to answer
    deprecated: Mapping[str, int] = field(default_factory=dict)


class Catalogue:
    """The models of one edge. The first is the one that is meant where nothing is said."""

    def __init__(self, models: Sequence[ServedModel], names: ModelNames = ModelNames()) -> None:  # noqa: B008  # frozen
        """Raises: SetupError for names that clash or stand for nothing, and for tokenizers that should agree."""
        if not models:
            raise SetupError("a catalogue needs at least one model")
        self.default = models[0]
        self.names = names
        self._models = tuple(models)
        self._entries: dict[str, ModelEntry] = {}
        for model in models:
            self._add(ModelEntry(model.name, model))
            for version in model.versions:
                self._add(ModelEntry(f"{model.name}@{_plain(version)}", replace(model, name=f"{model.name}@{version}")))
        for alias, target in names.aliases.items():
            self._add(ModelEntry(_plain(alias), self._named(target, alias).model, target))
        for alias, chooser in names.by_question.items():
            model = self._both(alias, chooser.small, chooser.large, share_tokenizer=False)
            self._add(ModelEntry(_plain(alias), model, f"{chooser.small}|{chooser.large}"))
        for alias, (small, large) in names.cascades.items():
            self._add(ModelEntry(_plain(alias), self._both(alias, small, large), f"{small}|{large}"))
        for name in names.deprecated:
            self._named(name, "deprecated")

    def _add(self, entry: ModelEntry) -> None:
        if entry.name in self._entries:
            raise SetupError(f"two models are called {entry.name!r}; names, versions and aliases must differ")
        self._entries[entry.name] = entry

    def _named(self, name: str, where: str) -> ModelEntry:
        if name not in self._entries:
            raise SetupError(f"{where}: there is no model {name!r}; there are {', '.join(self._entries)}")
        return self._entries[name]

    def _both(self, alias: str, small: str, large: str, *, share_tokenizer: bool = True) -> ServedModel:
        """Return what the edge may assume of an answer that either model may give."""
        one, other = self._named(small, alias).model, self._named(large, alias).model
        if share_tokenizer and not same_tokenizer(one.tokenizer, other.tokenizer):
            raise SetupError(f"{alias}: {small} and {large} need the same tokenizer: one prompt goes to either")
        return replace(one, name=alias, max_model_len=min(one.max_model_len, other.max_model_len), versions=())

    # --- versions that come and go ---------------------------------------------------------------------------------

    def add_version(self, name: str, version: str, model: ServedModel) -> None:
        """Offer another version of the model `name`. No effect if it is offered already.

        Raises: SetupError if there is no such model, if it has no versions, or for another tokenizer.
        """
        there = self._versioned(name)
        if version in there.versions:
            return
        if not same_tokenizer(there.tokenizer, model.tokenizer):
            raise SetupError(f"{name}@{version} has another tokenizer than {name}; give it a name of its own")
        shortest = min(there.max_model_len, model.max_model_len)
        self._replace(replace(there, max_model_len=shortest, versions=(*there.versions, version)))

    def remove_version(self, name: str, version: str) -> None:
        """Offer a version no longer; one that an alias stands for, or the last one, stays."""
        there = self._versioned(name)
        if versions := tuple(one for one in there.versions if one != version):
            with suppress(SetupError):
                self._replace(replace(there, versions=versions))

    def _versioned(self, name: str) -> ServedModel:
        there = next((model for model in self._models if model.name == name), None)
        if there is None:
            raise SetupError(f"there is no model {name!r}; there are {', '.join(one.name for one in self._models)}")
        if not there.versions:
            raise SetupError(f"{name} is served without a version: start it as {name}@1, say, to have others beside it")
        return there

    def _replace(self, model: ServedModel) -> None:
        other = Catalogue([model if one.name == model.name else one for one in self._models], self.names)
        self._models, self._entries, self.default = other._models, other._entries, other.default

    def __iter__(self) -> Iterator[ModelEntry]:
        """Yield every name there is, the default model's first."""
        return iter(self._entries.values())

    @property
    def default_name(self) -> str:
        """The name that is meant where a body says none."""
        return DEFAULT_MODEL if DEFAULT_MODEL in self._entries else self.default.name

    @property
    def max_model_len(self) -> int:
        """The longest context that any model has."""
        return max(entry.model.max_model_len for entry in self)

    @property
    def vocab_size(self) -> int:
        """The largest vocabulary that any model has."""
        return max(entry.model.tokenizer.vocab_size for entry in self)

    def entry(self, name: str) -> ModelEntry:
        """Return what is known of `name`. Raises: NotFound."""
        if name in self._entries:
            return self._entries[name]
        if name == DEFAULT_MODEL:
            return self._entries[self.default_name]
        valid = ", ".join(f"`{each}`" for each in self._entries)
        message = f"The model `{name[:200]}` does not exist. Valid models: {valid}."
        raise NotFound(message, param="model", code="model_not_found")

    def resolve(self, name: str, question: Callable[[], str | None]) -> ServedModel:
        """Return the model that `name` stands for, called as a replica may call it: by its name or a pin.

        Raises: NotFound; InvalidRequest if the model is chosen by the question, and there is no text to read.
        """
        if (chooser := self.names.by_question.get(name)) is None:
            return self.entry(name).model
        if (text := question()) is None:
            raise InvalidRequest(
                f"`{name}` chooses a model by the text of the prompt, and this one is token ids; "
                f"name `{chooser.small}` or `{chooser.large}`",
                param="model",
            )
        return self.entry(chooser.choose(text)).model

    def deprecated_since(self, asked: str, resolved: str) -> int | None:
        """Return since when (seconds since 1970) the name asked for, or what it stands for, is deprecated."""
        since = (self.names.deprecated.get(name) for name in (asked, resolved))
        return next((when for when in since if when is not None), None)


def catalogue_of(model: ServedModel | Catalogue) -> Catalogue:
    """Return a catalogue; a single model is one of its own."""
    return model if isinstance(model, Catalogue) else Catalogue([model])


def merged_versions(name: str, models: Mapping[str, ServedModel]) -> ServedModel:
    """Return one model with all of these versions: it has the context of the one that has least.

    Raises: SetupError unless all have the same tokenizer: a text is tokenized before a version is chosen for it.
    """
    first_version, first = next(iter(models.items()))
    for version, model in models.items():
        if not same_tokenizer(first.tokenizer, model.tokenizer):
            raise SetupError(
                f"{name}@{version} has another tokenizer than {name}@{first_version}; give it a name of its own"
            )
    shortest = min(model.max_model_len for model in models.values())
    return replace(first, name=name, max_model_len=shortest, versions=tuple(models))


def same_tokenizer(one: TextTokenizer, other: TextTokenizer) -> bool:
    """Return whether both read and write the same tokens, as far as their vocabularies and a few texts show."""
    if one is other:
        return True
    if (one.vocab_size, one.eos_ids) != (other.vocab_size, other.eos_ids):
        return False
    ids = range(one.vocab_size)
    if any(one.token_bytes(i) != other.token_bytes(i) or one.control_token(i) != other.control_token(i) for i in ids):
        return False
    return all(one.encode(text) == other.encode(text) and _chat(one, text) == _chat(other, text) for text in _PROBES)


def _chat(tokenizer: TextTokenizer, text: str) -> list[int] | None:
    try:
        return tokenizer.encode_chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}])
    except InvalidRequest:  # it has no chat template
        return None


def _plain(name: str) -> str:
    if not name or "@" in name:
        raise SetupError(f"{name!r} cannot be the name of a version or an alias: `@` divides name and version")
    return name
