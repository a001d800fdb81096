"""One vocabulary of findings for all datasets; policies are parsed and printed without loss."""

import re

import numpy as np
import pytest
from refusals import has_facts

from ribcage.data import findings
from ribcage.data.findings import CHESTXRAY14, CHEXPERT5, CHEXPERT14, FINDINGS, canonical
from ribcage.data.label_policy import TREATMENTS, Policy

NAN = np.nan


def test_the_fourteen_of_chestxray14_come_first_and_in_their_published_order() -> None:
    assert FINDINGS[:14] == CHESTXRAY14
    assert CHESTXRAY14[2] == "Effusion" and CHESTXRAY14[12] == "Pleural_Thickening"
    assert set(CHEXPERT14) <= set(FINDINGS) and set(CHEXPERT5) <= set(CHEXPERT14)


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("Pleural Effusion", "Effusion"),
        ("pleural_effusion", "Effusion"),
        (" PLEURAL-THICKENING ", "Pleural_Thickening"),
        ("Infiltrate", "Infiltration"),
        ("Airspace Opacity", "Lung_Opacity"),
        ("肺不张", "Atelectasis"),
        ("心影增大", "Cardiomegaly"),
        ("COVID-19", "COVID_19"),
        ("no finding", "No_Finding"),
        ("正常", "No_Finding"),
    ],
)
def test_every_datasets_name_for_a_finding_leads_to_one_word(name: str, finding: str) -> None:
    assert canonical(name) == finding and findings.is_known_finding(name)


def test_a_word_may_mean_something_in_one_dataset_only() -> None:
    assert canonical("Target", "rsna") == "Lung_Opacity"
    assert canonical("pleural", "medmnist") == "Pleural_Thickening"
    assert not findings.is_known_finding("Target")


def test_an_unknown_finding_is_one_line_with_the_nearest_one() -> None:
    with pytest.raises(
        ValueError, match=r"^Unknown finding 'Efusion'\. Did you mean 'Effusion'\? Findings: Atelectasis, .*$"
    ):
        canonical("Efusion")
    with pytest.raises(ValueError, match=r"Unknown finding '水肿肺'"):
        canonical("水肿肺")


def test_every_finding_has_a_chinese_name_that_leads_back() -> None:
    assert [canonical(findings.chinese(name)) for name in FINDINGS] == list(FINDINGS)
    assert findings.chinese("My_Finding") == "My_Finding"


def test_no_synonym_is_claimed_by_two_findings() -> None:
    words = [
        findings.plain_letters(word)
        for name in FINDINGS
        for word in {name, findings.CHINESE[name], *findings.SYNONYMS.get(name, ())}
    ]
    assert sorted(words) == sorted(set(words))


LABELS = np.array([[1, -1, NAN], [-1, 0, -1], [NAN, 1, 0]], np.float32)
NAMES = ("Edema", "Effusion", "Mass")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ignore", [[1, NAN, NAN], [NAN, 0, NAN], [NAN, 1, 0]]),
        ("ones", [[1, 1, NAN], [1, 0, 1], [NAN, 1, 0]]),
        ("zeros", [[1, 0, NAN], [0, 0, 0], [NAN, 1, 0]]),
        ("zeros,blank=zeros", [[1, 0, 0], [0, 0, 0], [0, 1, 0]]),
        ("ignore,blank=zeros", [[1, NAN, 0], [NAN, 0, NAN], [0, 1, 0]]),
        ("ones,Effusion=zeros", [[1, 0, NAN], [1, 0, 1], [NAN, 1, 0]]),
        ("competition", [[1, 0, 0], [1, 0, NAN], [0, 1, 0]]),
    ],
)
def test_a_policy_maps_uncertain_and_blank_labels(text: str, wanted: list[list[float]]) -> None:
    labels = LABELS.copy()
    targets = Policy.parse(text).apply(labels, NAMES)
    np.testing.assert_array_equal(targets, np.array(wanted, np.float32))
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(labels, LABELS)


def test_the_competition_policy_treats_its_five_findings_as_published() -> None:
    policy = Policy.parse("competition")
    assert [policy.treatment(name) for name in CHEXPERT5] == ["zeros", "ones", "zeros", "ones", "zeros"]


def test_smoothed_labels_lie_in_their_ranges_and_follow_the_draws() -> None:
    labels = np.full((1000, 2), -1, np.float32)
    draws = np.random.default_rng(0).random((1000, 2))
    targets = Policy.parse("ones+lsr,Mass=zeros+lsr").apply(labels, ("Edema", "Mass"), draws)
    np.testing.assert_allclose(targets, [0.55, 0] + draws * [0.3, 0.3], atol=1e-6)
    assert 0.55 <= targets[:, 0].min() < 0.56 and 0.84 < targets[:, 0].max() <= 0.85
    assert targets[:, 1].max() <= 0.3


def test_draws_never_touch_a_certain_label() -> None:
    labels = np.array([[1, 0, NAN]], np.float32)
    targets = Policy.parse("ones+lsr").apply(labels, NAMES, np.full((1, 3), 0.5))
    np.testing.assert_array_equal(targets, labels)


def test_smoothing_without_draws_is_refused() -> None:
    policy = Policy.parse("ones+lsr")
    assert policy.draws and not Policy.parse("ignore,Edema=ones").draws
    with pytest.raises(ValueError, match="needs `draws`"):
        policy.apply(LABELS, NAMES)


@pytest.mark.parametrize("blank", ["", ",blank=zeros"])
@pytest.mark.parametrize("other", ["", ",Pleural Effusion=zeros", ",肺水肿=ones+lsr,Mass=ignore"])
@pytest.mark.parametrize("first", [*TREATMENTS])
def test_the_text_of_a_policy_reads_back_as_the_same_policy(first: str, other: str, blank: str) -> None:
    policy = Policy.parse(first + other + blank)
    assert Policy.parse(str(policy)) == policy
    assert policy.uncertain == first and len(policy.exceptions) == other.count("=")


def test_a_policy_may_name_findings_of_ones_own_only_when_they_are_given() -> None:
    assert Policy.parse("zeros,my_finding=ones", own=["my_finding"]).treatment("my_finding") == "ones"
    with pytest.raises(ValueError, match="'my_finding=ones'"):
        Policy.parse("zeros,my_finding=ones")


def test_all_faults_of_a_policy_are_named_at_once() -> None:
    with pytest.raises(ValueError) as error:
        Policy.parse("onse,Edemma=zeros,Mass=zero,blank=ones")
    message = str(error.value)
    assert has_facts(message, "'onse'", "ones", "'Edemma=zeros'", "Edema", "'Mass=zero'", "zeros", "'blank=ones'")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "ones,zeros", "ones,Edema=ones,水肿=zeros", "blank=zeros,blank=zeros", "ones,,"])
def test_a_policy_with_a_repeated_or_empty_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        Policy.parse(text)


def test_a_policy_built_by_hand_is_checked_too() -> None:
    with pytest.raises(ValueError, match=r"treatment 'one', blank='ones'"):
        Policy("one", blank="ones")


@pytest.mark.parametrize(
    ("text", "dataset", "wanted"),
    [
        ("ones,a:zeros", "a", [0, 0, NAN]),
        ("ones,a:zeros", "b", [1, 1, NAN]),
        ("ones,a:Edema=zeros", "a", [1, 0, NAN]),
        ("zeros,Edema=ones,a:Mass=ones", "a", [1, 1, NAN]),
        ("zeros,Edema=ones,a:ignore", "a", [NAN, NAN, NAN]),
        ("a:blank=zeros", "a", [NAN, NAN, 0]),
        ("a:blank=zeros,blank=zeros,a:ones", "b", [NAN, NAN, 0]),
        ("blank=zeros,a:blank=ignore", "a", [NAN, NAN, NAN]),
        ("a:competition", "a", [NAN, 1, 0]),
        ("my data (2):水肿=ones", "my data (2)", [NAN, 1, NAN]),
    ],
)
def test_a_policy_may_have_parts_for_single_datasets(text: str, dataset: str, wanted: list[float]) -> None:
    policy = Policy.parse(text, datasets=["a", "b", "my data (2)"])
    assert Policy.parse(str(policy)) == policy and Policy.parse(str(policy.settled)) == policy.settled
    labels = np.array([[-1, -1, np.nan]], np.float32)
    found = policy.of_dataset(dataset).apply(labels, ("Mass", "Edema", "Effusion"))
    np.testing.assert_array_equal(found[0], np.array(wanted, np.float32))


@pytest.mark.parametrize(
    "text", ["c:ones", "a:", "a:ones,a:zeros", "a:Edema=ones,a:Edema=zeros", "a:readers=any", ":ones"]
)
def test_an_impossible_part_for_a_dataset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="label policy") as error:
        Policy.parse(text, datasets=["a", "nih"])
    assert repr(text) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match="'nih'"):
        Policy.parse("nhi:ones", datasets=["a", "nih"])


def test_smoothing_in_one_dataset_draws() -> None:
    policy = Policy.parse("ones,a:ones+lsr")
    assert policy.draws and not policy.settled.draws and not policy.of_dataset("b").draws
