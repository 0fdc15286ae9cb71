"""From a model's name and the classes or tags to a network ready for training, its tokenizer and
the reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from holdfast.core.decisions import decisions_in, notify, record_decisions
from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.packaged_models import EMBEDDED
from holdfast.core.records import Decision, Finding
from holdfast.models.adapters.adapter import attach
from holdfast.models.base import LoadedModel
from holdfast.models.encoders.checkpoint import check_fast
from holdfast.models.encoders.families import (
    FAMILIES,
    MEAN_POOLING_KEY,
    Family,
    strip_carrier,
    why_not_mean,
)
from holdfast.models.encoders.general import (
    GeneralClassifier,
    TextNetwork,
    architecture_of,
    last_linear,
    reads_padding,
)
from holdfast.models.encoders.network import (
    REGRESSION,
    SINGLE_LABEL,
    TOKENS,
    ArchitecturePool,
    EachToken,
    EncoderClassifier,
    MeanPool,
    mean_pool,
)
from holdfast.models.loading.checks import check_computes, loading
from holdfast.models.loading.options import DEFAULT_LOAD_OPTIONS, LoadOptions
from holdfast.models.loading.source import Source, find_model
from holdfast.models.loading.tokenizer import (
    accepted_inputs,
    choose_max_length,
    forget_limits,
    give_pad,
    limit_inputs,
    load_tokenizer,
)
from holdfast.models.loading.weights import (
    check_classes,
    check_dropout,
    configuration,
    describe,
    load_pretrained,
    name_classes,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POOLINGS = ("auto", "mean", "own")
DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "cls_dropout",
    "pooler_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
    "embedding_dropout",
    "mlp_dropout",
)


@dataclass(frozen=True)
class LoadedClassifier(LoadedModel):
    """What ``load_classifier`` and ``load_tagger`` give; ``max_length`` is the number of tokens a
    text is cut to; ``encodes_sentences`` as in ``Source``."""

    network: TextNetwork
    max_length: int
    encodes_sentences: bool = False


class PretrainedEncoder:
    """A pretrained model before its weights are read: where it is, its family (``None``: any other
    architecture), its configuration with the names of the outputs (``classes``), its tokenizer, and
    how many tokens it reads. ``make`` is the ``AutoModelFor…`` class that is trained; ``by_words``:
    it reads lists of words."""

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        options: LoadOptions,
        make: Any,
        by_words: bool = False,
    ) -> None:
        self.options, self.make, trust = options, make, options.trust_remote_code
        check_dropout(options.dropout)
        self.source = find_model(name, revision=options.revision, trust=trust)
        self.config = configuration(self.source, options.dropout, DROPOUTS)
        self.architecture = architecture_of(self.source, make, self.config)
        self.family = FAMILIES.get(str(self.config.model_type))
        name_classes(self.config, classes)
        self.tokenizer = load_tokenizer(self.source, trust, need_pad=self.family is not None)
        if self.family is None:
            self._set_pad()
        if by_words:
            self.tokenizer = _by_words(self.source, self.tokenizer)
        self.max_length, self.length_decision = self._choose_length()

    def _set_pad(self) -> None:
        """A causal model often has no padding token, and finds the end of a text by it."""
        missing, token = self.tokenizer.pad_token is None, give_pad(self.tokenizer)
        if token is None:
            rule, remedy = "has a tokenizer without a padding token", "Choose another model."
            raise ModelError(self.source.name, rule, None, remedy)
        if missing:
            because = "the tokenizer has it; no weights are added"
            notify(Decision("padding token", token, because))
        self.config.pad_token_id = self.tokenizer.pad_token_id

    def _choose_length(self) -> tuple[int, Decision]:
        """How many tokens a text is cut to, and why. The tokenizer, and any saved copy of it, then
        cuts there and returns what the model takes."""
        source, options = self.source, self.options
        adapter = options.adapter
        if adapter and not adapter.merge and source.config.get(MEAN_POOLING_KEY):
            raise ModelError(
                source.name,
                "carries mean pooling in a block of its own, which is taken off before "
                "training: an adapter folder would name a model without it",
                None,
                "Use --set model.adapter.merge=true, or start from the model it was trained from.",
            )
        with loading(source.name, "states no length that can be used"):
            length, because = choose_max_length(
                source.folder,
                self.config,
                self.tokenizer,
                options.max_length,
                options.prompt_places,
            )
        self.tokenizer.model_max_length = length
        limit_inputs(self.tokenizer, accepted_inputs(self.config))
        return length, because

    def plain(self) -> nn.Module:
        """The plain model. Its backbone must come from the file; weights after it, and those of a
        pooler, may be newly initialised."""
        base = f"{self.architecture.base_model_prefix}."
        plain: nn.Module = load_pretrained(
            self.make,
            self.source,
            self.config,
            f"a {self.name}",
            seed=self.options.seed,
            new=lambda key: not key.startswith(base) or key.startswith(f"{base}pooler."),
        )
        if self.family is not None:
            strip_carrier(plain, self.family)
        return plain

    @property
    def name(self) -> str:
        """The architecture, as people write it."""
        return str(self.config.model_type) if self.family is None else self.family.name

    def general(self, classes: Sequence[str], problem: str) -> GeneralClassifier:
        """The network of an architecture that is not in ``families.py``."""
        plain, seed = self.plain(), self.options.seed
        last = last_linear(plain, len(classes), self.source.name)
        network = GeneralClassifier(plain, last, tuple(classes), problem, seed)
        if problem == REGRESSION and network.head.bias is None:
            rule = "cannot predict numbers: its last layer has no bias that could hold their mean"
            remedy = "Choose an encoder, or make classes of the numbers."
            raise ModelError(self.source.name, rule, self.name, remedy)
        because = f"the pooling of {self.name}; its layers were found by walking its modules"
        notify(Decision("model.pooling", "own", because))
        return network

    def finish(self, network: TextNetwork, problem: str) -> None:
        """Record the meaning of the outputs, attach the adapter if requested, and run the network
        once."""
        source, options, network.problem = self.source, self.options, problem
        if options.adapter:
            attach(
                network, options.adapter, base=source.name, commit=source.commit, seed=options.seed
            )
        network.eval()
        if source.name != EMBEDDED:
            check_computes(source.name, network, self.tokenizer)
        if self.family is None and reads_padding(network, self.tokenizer):
            because = "this architecture does not mask it everywhere: a text's prediction may "
            because += "change slightly with the longest text of its batch"
            notify(Decision("padding", "changes outputs", because))

    def result(
        self, network: TextNetwork, log: Sequence[Decision | Finding], **settings: str
    ) -> LoadedClassifier:
        """The loaded model, with the decisions about it."""
        facts = describe(
            self.source,
            network,
            self.name,
            pooling=network.pooling,
            hidden_size=int(network.config.hidden_size),
        )
        return LoadedClassifier(
            network,
            self.tokenizer,
            self.max_length,
            decisions_in(log),
            facts,
            settings,
            encodes_sentences=self.source.encodes_sentences,
        )


def load_classifier(
    name: str,
    classes: Sequence[str],
    options: LoadOptions = DEFAULT_LOAD_OPTIONS,
    *,
    pooling: str = "auto",
    problem: str = SINGLE_LABEL,
) -> LoadedClassifier:
    """Load a pretrained encoder and put a new classification head on it, in float32 and
    evaluation mode.

    Parameters
    ----------
    name : ``"embedded"`` (MiniLM, English, no download), a folder, or a hub model's name.
    classes : the class names in the order of the logits; at least two, all different.
    pooling : ``"mean"`` over the real tokens, the architecture's ``"own"`` head, or ``"auto"``:
        the mean where a plain folder can carry it, else its own.
    problem : what the outputs mean, as Transformers' ``problem_type`` names it; a ``regression``
        has one output, which ``classes`` name.
    options : see ``LoadOptions``.

    Raises
    ------
    ModelError : the model cannot be found, read or fitted to the task.
    RecipeError : a setting is out of its range.
    """
    from transformers import AutoModelForSequenceClassification

    column = "Check the label column: a classifier needs at least two classes."
    check_classes(classes, 1 if problem == REGRESSION else 2, column)
    if pooling not in POOLINGS:
        raise RecipeError(
            "model.pooling", "is unknown", pooling, f"Choose one of: {', '.join(POOLINGS)}."
        )
    network: TextNetwork
    with record_decisions() as log:
        encoder = PretrainedEncoder(name, classes, options, AutoModelForSequenceClassification)
        encoder.config.problem_type = problem
        notify(*encoder.source.decisions)
        with loading(encoder.source.name, "has a config.json that cannot be used"):
            selected_pooling = _choose_pooling(pooling, encoder, len(classes))
        notify(encoder.length_decision)
        if encoder.family is None:
            network = encoder.general(classes, problem)
        else:
            network = assemble(
                encoder.plain(), encoder.family, tuple(classes), selected_pooling, options.seed
            )
        encoder.finish(network, problem)
    return encoder.result(network, log, pooling=network.pooling)


def load_tagger(
    name: str, tags: Sequence[str], options: LoadOptions = DEFAULT_LOAD_OPTIONS
) -> LoadedClassifier:
    """Load a pretrained encoder and put a new linear layer for ``tags`` on every token, in float32
    and evaluation mode; ``options`` as in ``load_classifier``. The network's logits are
    [B, T, tags].

    Raises
    ------
    ModelError : the model cannot be found, read or fitted to the task.
    RecipeError : a setting is out of its range.
    """
    from transformers import AutoModelForTokenClassification

    network: TextNetwork
    with record_decisions() as log:
        encoder = PretrainedEncoder(
            name, tags, options, AutoModelForTokenClassification, by_words=True
        )
        notify(*encoder.source.decisions, encoder.length_decision)
        if encoder.family is None:
            network = encoder.general(tags, TOKENS)
        else:
            plain = encoder.plain()
            dropout_name = next(n for n, _ in plain.named_children() if n in ("dropout", "drop"))
            network = EncoderClassifier(
                plain.get_submodule(encoder.family.base),
                EachToken(getattr(plain, "head", None)),
                encoder.family,
                tuple(tags),
                _rate(plain, dropout_name),
                options.seed,
            )
        encoder.finish(network, TOKENS)
    return encoder.result(network, log)


def assemble(
    plain: nn.Module, family: Family, classes: tuple[str, ...], pooling: str, seed: int
) -> EncoderClassifier:
    """Split a plain classification model: its backbone, and its own pooling if it is used."""
    from transformers.activations import ACT2FN

    config: Any = plain.config
    backbone: Any = plain.get_submodule(family.base)
    pool: MeanPool | ArchitecturePool = mean_pool(family, backbone)
    if pooling == "own" or family.has_mean_pooling:
        name = family.activation
        key = getattr(config, name.removeprefix("config:")) if name.startswith("config:") else name
        activation: Callable[[Tensor], Tensor] = ACT2FN[key]
        pool = ArchitecturePool(
            plain.get_submodule(family.dense),
            activation,
            norm=plain.get_submodule(family.norm) if family.norm else None,
            dropout=_rate(plain, family.inner_dropout) if family.inner_dropout else 0.0,
            over="mean"
            if family.has_mean_pooling and config.classifier_pooling == "mean"
            else "first",
        )
    if getattr(backbone, "pooler", None) is not None:
        # Weights that never see a gradient would stop distributed training.
        backbone.pooler = None
        if hasattr(backbone, "pooler_activation"):
            backbone.pooler_activation = None
    dropout = _rate(plain, family.dropout)
    return EncoderClassifier(backbone, pool, family, classes, dropout, seed)


def _rate(plain: nn.Module, path: str) -> float:
    return float(plain.get_submodule(path).p)  # type: ignore[arg-type]


def _by_words(source: Source, tokenizer: PreTrainedTokenizerBase) -> Any:
    """The tokenizer for lists of words: a byte-level one must put a space before each."""
    check_fast(source.name, tokenizer)
    with loading(source.name, "has a tokenizer that does not accept lists of words"):
        # A word alone begins a text to such a tokenizer, and gets other pieces than inside one.
        if getattr(tokenizer, "add_prefix_space", True):
            return tokenizer
        from transformers import AutoTokenizer

        spaced = AutoTokenizer.from_pretrained(source.folder, add_prefix_space=True)
        forget_limits(spaced)
        return spaced


def _choose_pooling(requested: str, encoder: PretrainedEncoder, classes: int) -> str:
    """``"mean"`` or ``"own"``; ModernBERT's own head is configured to use the mean."""
    family, config, adapter = encoder.family, encoder.config, encoder.options.adapter
    if family is None:
        # A EuroBERT, such as a static model, may have the mean as its own.
        if requested == "mean" and getattr(config, "classifier_pooling", None) != "mean":
            rule = f"cannot be the mean in a plain {encoder.name}: no block is known to carry it"
            raise ModelError("model.pooling", rule, requested, "Use --set model.pooling=own.")
        return "own"
    obstacle = why_not_mean(family, config, classes)
    if adapter and not adapter.merge:
        obstacle = (
            "a PEFT folder holds no configuration and no extra block to carry the mean "
            "(model.adapter.merge=true saves a whole model, which can)"
        )
    if requested == "mean" and obstacle:
        raise ModelError(
            "model.pooling",
            f"cannot be the mean in a plain {family.name}: {obstacle}",
            requested,
            "Use --set model.pooling=own.",
        )
    pooling = "own" if requested == "own" or obstacle else "mean"
    if family.has_mean_pooling and pooling == "mean":
        config.classifier_pooling = "mean"
    because = "set in the recipe"
    if requested == "auto":
        because = (
            f"its own head is used: {obstacle}"
            if obstacle
            else "on few rows the mean over all tokens was better than the first token (measured "
            f"with MiniLM), and a saved plain {family.name} model can compute it"
        )
    notify(Decision("model.pooling", pooling, because))
    return pooling
