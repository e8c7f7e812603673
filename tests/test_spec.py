"""Plain values <-> objects: what config files, checkpoints and the command line share."""

import dataclasses
import json

import pytest

from textdiff import hyperschedule, spec
from textdiff.data import (
    BPE,
    Addition,
    Benchmark,
    Characters,
    Corpus,
    Files,
    HubDataset,
    Mixture,
    PretrainedTokenizer,
    SmallSudoku,
    TinyShakespeare,
)
from textdiff.hyperschedule import (
    Block,
    Flat,
    Hyperschedule,
    OverlapBlock,
    QuenchedAR,
    Slide,
    StartSteps,
    TightBlock,
)
from textdiff.network import Architecture, Pretrained, Transformer
from textdiff.objective import (
    Estimator,
    MaskCount,
    Nelbo,
    Objective,
    ScoreEntropy,
    Stratified,
    WeightedCrossEntropy,
)
from textdiff.process import (
    GIDD,
    SCDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    GammaHybridMaskClock,
    Process,
    SmoothEpsilonHybrid,
    Uniform,
)
from textdiff.samplers import (
    ACS,
    Analytic,
    Ancestral,
    Capped,
    Confidence,
    Count,
    Editing,
    Entropy,
    EntropyBound,
    Euler,
    FirstHitting,
    GibbsCorrector,
    InformedACS,
    Margin,
    PosteriorCorrector,
    PredictorCorrector,
    Probability,
    PublishedACS,
    Remasking,
    ReMDM,
    Rescaled,
    Sampler,
    Score,
    Selection,
    SelfSpeculative,
    Threshold,
)

OBJECTS = {
    Process: [
        Absorbing(),
        Uniform(),
        GammaHybrid(0.3, 0.01),
        GammaHybridMaskClock(0.2),
        EpsilonHybrid(0.02),
        SmoothEpsilonHybrid(0.02, 6.0),
        GIDD(0.3, 0.5),
        SCDD(0.3, 1.2, 0.4),
    ],
    Hyperschedule: [
        QuenchedAR(),
        Flat(3),
        Block(2, 5),
        TightBlock(2, 3),
        OverlapBlock(2, 1, levels=3),
        hyperschedule.Mixture((QuenchedAR(), Block(2, 5))),
        Slide(5, "3/2"),
        StartSteps(2, (0, 3, 1)),
    ],
    Objective: [Nelbo(), WeightedCrossEntropy(0.5), ScoreEntropy()],
    Sampler: [
        Ancestral(),
        ACS(eta=0.1),
        ACS(rate=2.0),
        InformedACS(rate=2.0),
        PublishedACS(0.1),
        FirstHitting(),
        SelfSpeculative(FirstHitting(), width=4),
        ReMDM(Capped(0.2)),
        Confidence(score=Margin(), select=Threshold(0.9)),
        GibbsCorrector(),
        PosteriorCorrector(),
        Editing(0.8, remask=True),
        PredictorCorrector(ReMDM(Rescaled(0.5)), PosteriorCorrector(), corrections=2),
        Analytic(),
        Euler(),
    ],
    Score: [Probability(), Margin(), Entropy()],
    Selection: [Count(3), Threshold(-0.5), EntropyBound(0.1)],
    Remasking: [Capped(0.1), Rescaled(0.2)],
    Estimator: [Stratified(), Stratified(True), MaskCount()],
    Architecture: [Transformer(layers=1, width=8, heads=2, layout="shifted"), Pretrained("gpt2")],
    Corpus: [
        TinyShakespeare(),
        Files("a.txt", ["b.txt", "c.txt"]),
        HubDataset("x", streaming=True),
        Mixture((TinyShakespeare(), Files("a.txt")), (1, 2.5)),
        Benchmark("ptb"),
        Addition(3, seed=1),
        SmallSudoku(),
    ],
}
CASES = [(base, value) for base, values in OBJECTS.items() for value in values]


@pytest.mark.parametrize("base, value", CASES, ids=str)
def test_a_round_trip_gives_the_same_object(base, value):
    plain = json.loads(json.dumps(spec.describe(value)))
    again = spec.build(plain, base)
    assert spec.describe(again) == spec.describe(value)
    assert base is Corpus or again == value  # a list of files comes back as a tuple
    assert spec.build(value, base) is value


@pytest.mark.parametrize(
    "base, value", [case for case in CASES if case[0] is not Architecture], ids=str
)
def test_the_command_line_reads_what_str_writes(base, value):
    assert spec.parse(str(value), base) == value or base is Corpus
    positional = ", ".join(repr(getattr(value, f.name)) for f in dataclasses.fields(value))
    assert spec.describe(
        spec.parse(f" {type(value).__name__}({positional}) ", base)
    ) == spec.describe(value)


def test_every_class_has_a_case():
    for base, values in OBJECTS.items():
        assert {type(value).__name__ for value in values} == set(spec.names(base)), base


@pytest.mark.parametrize("spec_value", [BPE(300), Characters(), PretrainedTokenizer("x")], ids=str)
def test_tokenizers_are_described(spec_value):
    from textdiff.data import TokenizerSpec

    assert spec.build(spec.describe(spec_value), TokenizerSpec) == spec_value


@pytest.mark.parametrize(
    "value, message",
    [
        ("Flat", "expected {class_path, init_args}"),
        ({"class_path": 3}, "expected {class_path, init_args}"),
        ({"class_path": "os.system", "init_args": {"command": "true"}}, "not a class of textdiff"),
        ({"class_path": "textdiffx.Flat"}, "not a class of textdiff"),
        ({"class_path": "textdiff.hyperschedule.Nope"}, "is not a Hyperschedule; known"),
        ({"class_path": "nope.Flat"}, "pass the class yourself, as classes=\\[Flat\\]"),
        ({"class_path": "textdiff.process.Absorbing"}, "not a Hyperschedule; known: Block, Flat"),
        ({"class_path": "textdiff.hyperschedule.same_visibility"}, "not a Hyperschedule"),
        (
            {"class_path": "textdiff.hyperschedule.Flat", "init_args": {"nope": 1}},
            "takes no argument nope; it takes levels",
        ),
        (
            {"class_path": "textdiff.hyperschedule.Flat", "init_args": {"levels": 0}},
            "levels must be an integer >= 1",
        ),
        ({"class_path": "textdiff.hyperschedule.StartSteps"}, "StartSteps: .*missing"),
    ],
)
def test_what_cannot_be_built_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        spec.build(value, Hyperschedule)


@pytest.mark.parametrize(
    "text, message",
    [
        ("Nope", "unknown hyperschedule 'Nope': expected .* one of: Block, Flat"),
        ("Flat(", "cannot read 'Flat\\('"),
        ("Flat(levels)", "cannot read"),
        ("__import__('os').system('true')", "unknown hyperschedule"),
        ("Flat(1, 2)", "at most 1 argument"),
        ("Flat(level=2)", "takes no argument level"),
        ("Flat(0)", "levels must be"),
        ("Flat('a')", "Flat: "),
        ("Hyperschedule", "unknown hyperschedule"),
        ("Slide(4, 0.5)", "got the float 0.5"),
        ("", "cannot read ''"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        spec.parse(text, Hyperschedule)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "Confidence(score=Threshold(0.9))",
            "unknown score 'Threshold': expected a Score .* one of: Entropy, Margin",
        ),
        ("Confidence(score=0.9)", "unknown score '0.9'"),
        ("Confidence(select=Count(0))", "n must be an integer >= 1"),
        ("Confidence(select=Threshold(Count(2)))", "cannot read 'Count\\(2\\)' in Threshold"),
        ("PredictorCorrector(Ancestral(), Ancestral())", "corrector must be GibbsCorrector"),
    ],
)
def test_an_argument_that_is_an_object_is_read_as_its_type(text, message):
    assert spec.parse("Confidence(Margin, EntropyBound(0.1))", Sampler) == Confidence(
        Margin(), EntropyBound(0.1)
    )
    with pytest.raises(ValueError, match=message):
        spec.parse(text, Sampler)


# --------------------------------------------------------------------------------- own classes


@dataclasses.dataclass(frozen=True)
class Certain(Score):
    """A score of the user's own."""

    margin: float = 0.5


@dataclasses.dataclass(frozen=True)
class Patient(Ancestral):
    """A sampler of the user's own, with a score."""

    score: Score = Probability()  # noqa: RUF009 - frozen
    rounds: tuple[int, ...] = (1, 2)


OWN = [Patient, Certain]
MINE = Patient(Certain(0.25), (3,))


def test_a_class_that_has_moved_is_found_by_its_name():
    for module in ("textdiff.nope", "textdiff.hyperschedule.nope", "textdiff.data", "textdiff"):
        value = {"class_path": f"{module}.Flat", "init_args": {"levels": 3}}
        assert spec.build(value, Hyperschedule) == Flat(3)


def test_own_classes_are_built_only_if_passed():
    plain = json.loads(json.dumps(spec.describe(MINE)))
    assert plain["class_path"] == f"{__name__}.Patient"
    assert spec.build(plain, Sampler, OWN) == MINE
    with pytest.raises(ValueError, match=r"not a class of textdiff.*classes=\[Patient\].*--import"):
        spec.build(plain, Sampler)
    with pytest.raises(ValueError, match=r"Certain' is not a class of textdiff"):
        spec.build(plain, Sampler, [Patient])


def test_own_classes_have_names_on_the_command_line():
    assert spec.parse(str(MINE), Sampler, OWN) == MINE
    assert spec.parse("Confidence(Certain(), Count(2))", Sampler, OWN).score == Certain()
    assert set(spec.names(Sampler, OWN)) == {*spec.names(Sampler), "Patient"}
    with pytest.raises(ValueError, match="unknown sampler 'Patient'"):
        spec.parse("Patient", Sampler)


def test_an_own_class_does_not_hide_one_of_textdiff():
    """A path says which is meant; a bare name does not."""
    own = dataclasses.make_dataclass("Ancestral", [], bases=(Ancestral,), frozen=True)
    own.__module__ = "mine"
    assert type(spec.build(spec.describe(Ancestral()), Sampler, [own])) is Ancestral
    assert type(spec.build({"class_path": "mine.Ancestral"}, Sampler, [own])) is own
    both = r"textdiff.samplers.ancestral.Ancestral and mine.Ancestral"
    with pytest.raises(ValueError, match=f"several Sampler: {both}"):
        spec.parse("Ancestral", Sampler, [own])


def test_two_own_classes_of_one_name_are_refused():
    two = [dataclasses.make_dataclass("Two", [], bases=(Score,), frozen=True) for _ in range(2)]
    two[0].__module__, two[1].__module__ = "one", "other"
    with pytest.raises(ValueError, match=r"several Score: one\.Two and other\.Two"):
        spec.build({"class_path": "one.Two"}, Score, two)
    assert spec.build({"class_path": "one.Two"}, Score, [two[0], two[0]]) == two[0]()


def test_no_name_of_textdiff_means_two_things():
    for base in OBJECTS:
        ours = [cls for cls in spec.descendants(base) if cls.__module__.startswith("textdiff.")]
        assert len({cls.__name__ for cls in ours}) == len(set(ours))


def test_what_cannot_be_written_down_is_refused():
    class Loose(Score):
        """No dataclass of its own, but one of its base's: it has no arguments."""

    assert spec.describe(Loose())["init_args"] == {}
    with pytest.raises(ValueError, match="make object a frozen dataclass"):
        spec.describe(object())
    with pytest.raises(ValueError, match="cannot be written down"):
        spec.describe(Certain(object()))


def test_classes_of_an_object_are_those_of_its_parts_too():
    assert spec.classes_of(MINE, None, 3) == [Patient, Certain]
