"""The report's `sets` and `figures`: what the generated sets are worth beside the training photographs.

`measure_sets` returns {"sets": ..., "figures": ...}; JSON values only, nothing that names a photograph.

sets.<pre_op|post_op|all>.<metric>.<profile>.<variant> is a Figure, or a list of sweep rows:

    metric           profile  variant        what
    fir_pairs        paper    raw, filtered  share of generated x training pairs of the condition at or above
                                             the threshold ("all": of every condition)
    fir_images       paper    raw, filtered  share of generated images with such a pair
    fir_images_any   paper    raw, filtered  the same against the training images of every condition
    fir_sweep        paper    raw, filtered  list of {"threshold": 0.3, "pairs": {"value", "ci95", "k", "n"},
                                             "images": {...}} for 0.30, 0.35 ... 0.70
    fid              paper    raw, filtered  Frechet distance to the training images
    fid_matched      robust   raw, filtered  the same at the size of fid_floor, mean over random draws
    fid_holdout      robust   raw, filtered  to hold-out photographs: copying the training images does not
                                             lower it
    kid, kid_holdout robust   raw, filtered  kernel distance to either, unbiased at any number of images
    precision, recall, density, coverage
                     robust   raw, filtered  neighbourhoods of generated and training images
    vendi            robust   raw, filtered  how many wholly different images the set amounts to
    lpips            paper    raw, filtered  mean over 2,000 random pairs
    lpips_all_pairs  robust   raw, filtered  mean over all pairs, exact
    lpips_reference  robust   real           the training images' own LPIPS, over all pairs
    near_copies      robust   raw, filtered  share of images that are a near copy of a training image of any
                                             condition, looked for in the pixels, without a face too
    near_copies_control
                     robust   holdout        the same of hold-out photographs
    fid_floor        robust   real           training images against training images, mean over random halves
    kid_floor        robust   holdout        hold-out photographs against the training images
    vendi_reference  robust   real           the training images' own Vendi score
    fir_control_pairs, fir_control_images
                     robust   holdout        hold-out photographs against the training images: what faces of
                                             other people score
    fir_pairs        robust   raw, filtered  share of pairs at or above the audit's threshold; the interval
                                             resamples images and people
    leak_images      robust   raw, filtered  share of images with such a pair
    leak_control     robust   photographs, holdout, control_faces, unseen
                                             the same where there is nothing to find (`leak`), each with its
                                             `attack`, as many people to be found among, and `residual`
    residual_risk    robust   raw, filtered  what leak_images finds beyond its first control, with `attack`,
                                             `control`, `could_be_missed` (upper end by what the recogniser
                                             misses too) and `upper_of_all` (were every image that could not
                                             be assessed a leak)
    residual_copies  robust   raw, filtered  near copies beyond those among hold-out photographs
    distance_ratio   robust   raw            lower twentieth of the distances to the nearest training face by
                                             those to the next person's, with its `control` (`nearest`)
    authenticity     robust   raw            share of images farther from their nearest training face than
                                             that is from the next, with its `control`
    …_second         robust                  all of these but copies by a second recogniser (--second-faces)

Another extractor than Inception gives the same over its vectors: its Frechet distance by its own name
(`dinov2`, `dinov2_holdout`), the rest with it in front (`dinov2_kid`).

`filtered` is there only when the set went through the filters. A Figure:

    value         float, a proportion from 0 to 1 for fir_*, near_copies*; null where it could not be
                  measured, or where a number of photographs below 5 would follow from it; so for every count
    ci95          [low, high] or null: Clopper-Pearson for fir_*, near_copies*; the jackknife over images for
                  distances and neighbourhoods, at these sizes; Hoeffding's variance of pairs for lpips*
    k             fir_*, near_copies*: how many were at or above the threshold
    n             what the value is a mean or a share of: pairs (fir_pairs, lpips*), images (the others)
    n_images      images of the set that entered (of distances, neighbourhoods and LPIPS a random
                  `most_images` of a larger set)
    n_reference   training photographs that entered (with a face for fir_*), null where none are needed
    n_unreadable  images set aside because they are damaged
    n_no_face, n_several
                  fir_* only: images without a face (they did not enter) and with several (the largest did)
    threshold     fir_*, near_copies* only: a cosine, or a score of `imageset.copies`
    image_size    lpips* only: [width, height] in px at which images were compared; n_resized: how many were
                  brought to it
    range         fid_floor, fid_matched only: [smallest, largest] of the draws
    extractor     {"name", "sha256", "phantom": bool, "licence"}; phantom: the figure says nothing about
                  photographs, and whoever shows it must say so
    note          one sentence for the reader, or absent

figures.audit = null, or {"threshold": {"value", "source", "wanted", "stated", "reason", "paper",
    "extractor"}, "second": the same or null}: the audit's threshold (`threshold.AuditThreshold`)
figures.ranking = {condition: {metric: ...}} of the sets that were compared with the same photographs
    (`ranking`); empty where there is one of each
figures.breakdown.<set>.<skin_tone|age_group|subject>.<what> = {"n": images, "n_reference": photographs that
    show the same (null where so few that they are not told, left out where no photograph says it),
    "figures": {metric: Figure}}; the figures of parts of fewer than 20 on either side are left out: too few
figures.similarity.<pre_op|post_op|all>.<raw|filtered> = {"edges": [n + 1 cosines from -1 to 1],
    "counts": [n], "mean": float, "threshold": 0.6, "n_pairs": int, "extractor": {...}}; counts and mean are
    null with fewer than 5 training photographs; where n_pairs is null counts are thousandths.
figures.pca = null, or {
    "explained": [a, b]             shares of the variance,
    "edges_x": [m + 1], "edges_y": [m + 1],
    "real": {condition: [m][m] counts, first index x; every cell under 5 photographs is null},
    "n_real": {condition: n}        (n under 5 is null),
    "generated": {condition: [[x, y], ...]}, the raw set,
    "control": [[x, y], ...] or null (points of a synthetic control set only; photographs never),
    "control_counts": [m][m] counts as in "real", or null,
    "n_control": n                  (photographs under 5: null),
    "spread": {"real" | "generated" | "control": {condition ("control" for the control): float}}, root mean
        square distance from the group's own mean in all 512 dimensions (0: one face, towards 1: all differ),
    "overlap": {condition: float}, shared area of the real and the generated histogram on the grid, 0 to 1,
    "extractor": {...}, "note": str}
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..cluster.work import HERE, Engine
from ..dataset.folder import holds_phantoms
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..ranges import COSINE, COUNT, MOST_MEASURED, PAPER_SIMILARITY
from .audit import audit_figures, copies_risk
from .bare import refuse_people
from .breakdown import add_distributions, add_identity, parts_with_figures, told_breakdown
from .copies import copy_figures
from .distributions import distribution_figures, noted, sides_of
from .extractors import Extractors
from .faces import face_figures, look_at_faces
from .features import PairSampling, PopulationFeatures, common_size, extract_features
from .image_pass import FeatureCaches
from .lpips import NO_PERCEPTUAL, PAPER_PAIRS, Perceptual
from .ranking import rankings
from .resampling import Estimate
from .sets import (
    Group,
    Mask,
    Population,
    References,
    Warn,
    generated_population,
    name_damaged,
    reference_population,
)
from .threshold import FALSE_MATCH_RATE, STATED_RATE
from .untold import SECOND, hides_counts, seen_by_both, without_small_counts

NOT_PAIRED = "It takes two images that can be read."
REFERENCE_SIZE = "The training images at the generated images' size, over all pairs."


@dataclass(frozen=True)
class MeasureSettings:
    """What a measurement depends on beside images and networks.

    Attributes:
        threshold: cosine from which two faces count as one person's.
        pairs: random pairs for LPIPS.
        seed: of the pairs, of the halvings, and of the images where a set has too many.
        control: a folder of other faces for the plane.
        cache_dir: a private folder for what is computed from generated images (by default a folder of its own
            in each set).
        false_match_rate: of impostor pairs, that the audit's threshold states.
        conditions: what a set shows, by its name, where that is not its condition ("all": no one condition).
        most_images: of a set, drawn at random, that enter distances, neighbourhoods and LPIPS, which bounds
            memory and time; faces and near copies are looked for in all.
    """

    threshold: float = PAPER_SIMILARITY
    pairs: int = PAPER_PAIRS
    seed: int = 0
    control: Path | None = None
    cache_dir: Path | None = None
    false_match_rate: float = FALSE_MATCH_RATE
    conditions: Mapping[str, str] = field(default_factory=dict)
    most_images: int = MOST_MEASURED

    def __post_init__(self) -> None:
        STATED_RATE.check(self.false_match_rate, "the false-match rate")
        COSINE.check(self.threshold, "the threshold")
        COUNT.check(self.pairs, "the number of pairs")
        COUNT.check(self.most_images, "the largest number of images")


def measure_sets(
    generated: Mapping[str, Path],
    references: References | Sequence[Path],
    analyzer: FaceAnalyzer | None,
    extractors: Extractors,
    settings: MeasureSettings | None = None,
    *,
    second: FaceAnalyzer | None = None,
    warn: Warn = lambda message: None,
    engine: Engine = HERE,
) -> dict[str, Any]:
    """Measure generated sets beside the training photographs; the result is described above.

    What comes from photographs stays in their datasets, each in its own.

    Args:
        generated: folder by name, which is the condition ("all": of no one condition) unless
            `settings.conditions` says what the set shows.
        references: dataset folders, whose conditions their manifests name, and bare folders; none when there
            are no photographs.
        analyzer: None leaves FIR and the face figures out.
        extractors: a metric whose network is not in it is left out.
        settings: threshold, pairs, seed and folders.
        second: another recogniser, which filtered nothing, for the leak audit.
        warn: told what could not be measured.
        engine: who looks for faces and near copies and computes features: this process, or workers on Ray
            that see the same folders.

    Raises:
        UserError: a folder is none, or every set is empty.
    """
    settings = settings or MeasureSettings()
    references = References.of(references)
    refuse_photographs(references, extractors, settings.cache_dir)
    warn = functools.cache(warn)  # both passes meet the same damaged images
    population = generated_population(generated, warn, settings.conditions)
    shows = {group.name: group.shows for group in population.groups}
    sets: dict[str, Any] = {group.name: {} for group in population.groups}
    figures: dict[str, Any] = {"similarity": {}, "pca": None, "audit": None}
    estimates: dict[str, dict[str, Estimate]] = {}
    photographs = reference_population(references, conditions=shows.values())
    breakdown = {
        group.name: parts_with_figures(
            group, population.images, photographs.images, photographs.mask(group.shows)
        )
        for group in population.groups
    }
    trained = Counter(image.condition for image in photographs.images)
    with_face: dict[str, int] = {}
    if analyzer is not None:
        look = functools.partial(look_at_faces, population, references, settings.control)
        faces = look(analyzer, settings.cache_dir, warn, engine)
        of_faces = face_figures(population, faces, settings.threshold)
        sets, figures = of_faces["sets"], of_faces["figures"]
        for group in population.groups:
            add_identity(
                breakdown[group.name],
                group,
                population.images,
                faces.generated,
                faces.references,
                faces.extractor,
                settings.threshold,
            )
        audit = audit_figures(population, faces, analyzer.pack, settings.false_match_rate)
        figures["audit"] = {"threshold": audit["threshold"], "second": None}
        if second is not None:
            others = look(second, settings.cache_dir, warn, engine)
            again = audit_figures(population, others, second.pack, settings.false_match_rate, SECOND)
            figures["audit"]["second"] = again["threshold"]
            merge(audit["sets"], again["sets"])
        merge(sets, audit["sets"])
        if faces.references is not None:
            with_face = dict(Counter(faces.references.conditions))
            if second is not None and others.references is not None:
                with_face = seen_by_both(trained, with_face, Counter(others.references.conditions))
            copies = copy_figures(
                population,
                references,
                faces.references,
                settings.cache_dir,
                phantom=analyzer.phantom_only,
                engine=engine,
                analyzer=analyzer,
            )
            for name, metrics in copies.items():
                sets[name] |= metrics | copies_risk(metrics)
    if extractors:
        drawn, real, held = all_features(population, references, extractors, settings, warn, engine)
        for group in drawn.population.groups:
            for metric, network in extractors.vectors.items():
                sides = sides_of(metric, group, real, held, network.info.as_json(), settings.seed)
                found = distribution_figures(group, drawn, sides)
                sets[group.name] |= found.figures
                estimates[group.name] = estimates.get(group.name, {}) | found.estimates
                add_distributions(breakdown[group.name], group, drawn, real, sides)
            if extractors.perceptual is not None:
                info = extractors.perceptual.info.as_json()
                sets[group.name] |= perceptual_figures(group, drawn, real, info)
    told = without_small_counts({"sets": sets, "figures": figures}, trained, with_face, shows)
    told["figures"]["breakdown"] = {
        name: told_breakdown(parts, hidden=hides_counts(shows[name], trained, with_face))
        for name, parts in breakdown.items()
        if parts
    }
    told["figures"]["ranking"] = rankings(told["sets"], shows, estimates)
    return told


def merge(sets: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add the figures of `more` to `sets`, in place, profile by profile."""
    for name, metrics in more.items():
        for metric, profiles in metrics.items():
            sets.setdefault(name, {}).setdefault(metric, {}).update(profiles)


def all_features(
    population: Population,
    references: References,
    extractors: Extractors,
    settings: MeasureSettings,
    warn: Warn,
    engine: Engine = HERE,
) -> tuple[PopulationFeatures, PopulationFeatures, PopulationFeatures]:
    """The features of the generated images, and of the photographs that were trained on and held out.

    Every image is decoded once; the hold-out enters no LPIPS.
    """
    population = population.sampled(settings.most_images, settings.seed, warn)
    size = common_size(population.images)
    shown = [group.shows for group in population.groups]
    drawn = extract_features(
        population,
        {f"{g.name}.{variant}": mask for g in population.groups for variant, mask in g.variants().items()},
        extractors,
        PairSampling(size, settings.pairs, settings.seed),
        FeatureCaches(settings.cache_dir),
        "features, generated",
        engine,
    )
    name_damaged(population.images, drawn.damaged, warn)
    real, held = (
        extract_features(
            photographs,
            {group.name: group.raw for group in photographs.groups},
            networks,
            PairSampling(size, 0),
            FeatureCaches(settings.cache_dir),
            description,
        )
        for photographs, networks, description in (
            (
                reference_population(references, conditions=shown),
                extractors,
                "features, photographs",
            ),
            (
                reference_population(references, "holdout"),
                replace(extractors, perceptual=None),
                "features, hold-out",
            ),
        )
    )
    return drawn, real, held


def perceptual_figures(
    group: Group, drawn: PopulationFeatures, real: PopulationFeatures, extractor: dict[str, Any]
) -> dict[str, Any]:
    """`lpips`, `lpips_all_pairs` and, where there are photographs, `lpips_reference`."""
    figures: dict[str, Any] = {"lpips": {"paper": {}}, "lpips_all_pairs": {"robust": {}}}
    for variant, mask in group.variants().items():
        name = f"{group.name}.{variant}"
        found = drawn.lpips.get(name, NO_PERCEPTUAL)
        shared = shared_facts(found, drawn, name, mask, extractor)
        figures["lpips"]["paper"][variant] = {
            **shared,
            "value": found.pairs_mean,
            "ci95": found.pairs_interval(),
            "n": found.n_pairs,
        }
        figures["lpips_all_pairs"]["robust"][variant] = {
            **shared,
            "value": found.all_pairs_mean,
            "ci95": found.all_pairs_interval(),
            "n": found.n_all_pairs,
        }
    if group.shows in real.lpips:
        found = real.lpips[group.shows]
        shared = shared_facts(found, real, group.shows, real.population.mask(group.shows), extractor)
        figures["lpips_reference"] = {
            "robust": {
                "real": {
                    "value": found.all_pairs_mean,
                    "n": found.n_all_pairs,
                    **shared,
                    "n_reference": found.n_images,
                    "note": noted(extractor, REFERENCE_SIZE),
                }
            }
        }
    return figures


def shared_facts(
    found: Perceptual, features: PopulationFeatures, name: str, mask: Mask, extractor: dict[str, Any]
) -> dict[str, Any]:
    """What the LPIPS figures of one set have in common."""
    note = noted(extractor, "") if found.n_images >= 2 else NOT_PAIRED
    return {
        "ci95": None,
        "n_images": found.n_images,
        "n_reference": None,
        "n_unreadable": int(mask.sum()) - found.n_images,
        "image_size": list(features.size) if features.size else None,
        "n_resized": features.n_resized[name],
        "extractor": extractor,
        **({"note": note} if note else {}),
    }


def refuse_photographs(references: References, extractors: Extractors, cache_dir: Path | None) -> None:
    """Raise UserError where networks without real weights would measure photographs."""
    if not extractors.are_seeded:
        return
    refuse_people(references.folders, cache_dir)
    for folder in references.datasets:
        if not holds_phantoms(folder):
            raise UserError(
                f"{folder} holds photographs, and seeded-random networks are for phantoms alone; "
                "leave --phantom out (diffusioncleft weights list shows what is then needed)"
            )
