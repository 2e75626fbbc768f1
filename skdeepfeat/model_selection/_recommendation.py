"""The text of the recommendation, with the numbers that support it."""

import numpy as np

from .._utils._shown import rounded

# Data with at least this many images count as large in the rule of thumb of cs231n.
_LARGE = 1000
_TABLE = {
    ("small", "similar to"): "a linear model on the neck",
    ("small", "different from"): "a linear model on an earlier layer",
    ("large", "similar to"): "fine-tuning",
    ("large", "different from"): "fine-tuning of the whole network",
}
# The text mentions an overrun of the budget by more than this fraction.
_TOLERATED = 0.2
_N_LISTED = 4


def recommend(decision, *, interrupted=False):
    """Return the recommendation of a `Decision` as text."""
    parts = [_what(decision)]
    if decision.can_learn:
        evidence = (_networks, _layers, _curve, _tuning, _gradients, _table)
        parts += [describe(decision) for describe in evidence]
    parts += [_further(decision), _time(decision, interrupted)]
    return "\n".join(part for part in parts if part)


def _what(decision):
    pool = decision.pool()
    chosen, best = decision.recommended(), decision.best()
    text = ""
    if not decision.can_learn:
        text = (
            f"Nothing to learn here: the best of {len(pool)} candidates reaches "
            f"{_score(decision, pool[best])}, guessing {_numbers(decision.chance)}. "
            "Do the labels belong to the images?\n"
        )
    text += (
        f"Recommended: {chosen}. {_capital(_score(decision, pool[chosen]))} "
        f"on {decision.n:,} images; predicts {_rate(decision, chosen)}."
    )
    if chosen.is_tuned:
        text += (
            f" The score is that of {decision.race.base} on these images, plus the gain"
            " from fine-tuning below."
        )
    if best == chosen:
        return text + " No candidate scores higher."
    return text + (
        f" It is the cheapest within one standard error of the best one, {best}: "
        f"{_numbers(pool[best])}, {_rate(decision, best)}."
    )


def _networks(decision):
    """Say how each network ended: with its best layer on the most images."""
    rows = [row for row in decision.rows if row["stage"] == "network"]
    rows.sort(key=lambda row: (-row["n_images"], -row["score"]))
    best = {}
    for row in rows:
        best.setdefault(row["network"], row)
    if len(best) < 2:
        return ""
    found = [
        f"{row['score']:.3f} for {row['network']}, {row['layer']} ({row['n_images']:,})"
        for row in best.values()
    ]
    return (
        "Networks: scores of a linear model on the best layer of each, with the number "
        f"of images: {'; '.join(found)}."
    )


def _probed_network(decision):
    """Return the recommended network, or the best one whose layers are known."""
    race = decision.race
    networks = [decision.recommended().network]
    if race is not None:
        networks.append(race.base.network)
    known = [network for network in networks if network in decision.layer_of]
    return known[0] if known else None


def _layers(decision):
    network = _probed_network(decision)
    if network is None:
        return ""
    layer, depth, is_similar = decision.where_best(network)
    like = "like" if is_similar else "unlike"
    return (
        f"Layers: a linear model on {network.name} scores best at {layer}, after "
        f"{depth:.0%} of the operations. By this measure, the images are {like} those "
        "that the network was trained on."
    )


def _curve(decision):
    curve = decision.curve
    if len(curve) < 2:
        return ""
    scores = ", ".join(f"{one.mean:.3f}" for one in curve.values())
    sizes = ", ".join(f"{n:,}" for n in curve)
    *_, before, last = curve.values()
    rises = last.mean - before.mean > np.nan_to_num(last.error)
    verdict = (
        "It still rises, so more images would help."
        if rises
        else "It has leveled off: more images of this kind would hardly help a model "
        "on frozen features."
    )
    return f"Learning curve of the linear model: {scores} on {sizes} images. {verdict}"


def _tuning(decision):
    race = decision.race
    if race is None or not race.scores:
        return ""
    tuned = [candidate for candidate in race.scores if candidate.is_tuned]
    if not tuned:  # the first one failed
        return ""
    verdict = "worth it" if decision.recommended().unfreeze else "not shown to help"
    gains = "; ".join(f"{one} {_gain(race, one)}" for one in tuned)
    return (
        f"Fine-tuning is {verdict}. Gain in {decision.problem.score_name} over "
        f"{race.base} from training on {race.n_train:,} images for {race.n_epochs} "
        f"epochs: {gains}."
    )


def _gain(race, candidate):
    gain, n_tested = race.gain(candidate), race.n_tested[candidate]
    return f"{_numbers(gain, '+.3f')} on {n_tested:,} images"


def _gradients(decision):
    race = decision.race
    if race is None or race.gradient_norms is None:
        return ""
    norms = race.gradient_norms["relative_norm"].drop("head")
    text = (
        f"Gradients: relative to its weights, stage {norms.idxmax()} has the largest "
        f"gradient, {norms.max():.3g} (smallest: {norms.min():.3g})."
    )
    stages = race.stages()
    if stages is not None:
        text += f" unfreeze={stages!r} would train stages with at least half of that."
    return text


def _table(decision):
    chosen = decision.recommended()
    network = _probed_network(decision)
    if network is None:
        return ""
    n = len(decision.problem)
    size = "large" if n >= _LARGE else "small"
    layer, _, is_similar = decision.where_best(network)
    compared = "similar to" if is_similar else "different from"
    advice = _TABLE[size, compared]
    if size == "small":
        agrees = not chosen.unfreeze and (chosen.layer == "neck") == is_similar
    else:
        agrees = bool(chosen.unfreeze) if is_similar else chosen.unfreeze == "all"
    verdict = "The measurement agrees."
    if not agrees:
        verdict = f"The measurement disagrees: {chosen}."
    return (
        f"The rule of thumb for {size} data ({n:,} images) that are {compared} the "
        f"training data of the network (best layer: {layer}) is {advice}. {verdict}"
    )


def _further(decision):
    chosen, race = decision.recommended(), decision.race
    text = f"The final fit takes about {_seconds(decision.final_seconds(chosen))}."
    if race is not None and race.whole != chosen and race.whole in race.epoch_seconds:
        seconds = _seconds(race.final_seconds(race.whole))
        text += (
            " To go further: fine-tuning the whole network on all images would take "
            f"about {seconds}."
        )
    if decision.n < len(decision.problem):
        text += (
            f" The candidates were compared on {decision.n:,} of "
            f"{len(decision.problem):,} images; a larger time_budget would use all."
        )
    return text


def _time(decision, interrupted):
    clock, seconds = decision.clock, decision.seconds
    budget = f"{_seconds(seconds)} of the budget of {_seconds(clock.budget)}."
    text = f"The decision took {budget}"
    if interrupted:
        text = f"Interrupted after {budget}"
    elif (excess := seconds / clock.budget - 1) > _TOLERATED:
        text += (
            f" That is {excess:.0%} more than the budget: a step took longer than the "
            "earlier steps suggested."
        )
    for reason, what in decision.not_tried.items():
        listed = "; ".join(what[:_N_LISTED])
        if len(what) > _N_LISTED:
            listed += f"; and {len(what) - _N_LISTED} more"
        text += f" Not tried {reason}: {listed}."
    return text


def _score(decision, scores):
    return f"{decision.problem.score_name} {_numbers(scores)}"


def _numbers(scores, how=".3f"):
    if np.isnan(scores.error):  # a single fold
        return f"{scores.mean:{how}}"
    return f"{scores.mean:{how}} (standard error {scores.error:.3f})"


def _rate(decision, candidate):
    return f"{rounded(decision.images_per_second(candidate))} images/s"


def _seconds(seconds):
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:,.0f} s"


def _capital(text):
    return text[:1].upper() + text[1:]
