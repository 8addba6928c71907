"""SAAT's tables: attacks on deep hashing, plain and adversarially trained."""

from __future__ import annotations

from hashrobust.reports.published import Asked, Fact, Published, published
from hashrobust.reports.published._base import fraction, read_table

SOURCE = "SAAT: Yuan et al., IEEE TIFS 2023, arXiv 2310.14637"
# Its name of an attack, ours, our preset with its settings, and its steps where the source tells them.
ATTACKS: dict[str, tuple[str, str, int | None]] = {
    "clean": ("none", "none", None),
    "HAG": ("hag", "saat", 2000),
    "SDHA": ("sdha", "saat", 1500),
    "SAAT": ("center", "saat", 100),
    "SAAT-targeted": ("center", "saat", 100),
    "P2P": ("p2p", "saat", None),
    "DHTA": ("dhta", "saat", None),
    "THA": ("tha", "saat", 100),
    "ProS-GAN": ("prosgan", "original", None),
}
DEFENCES = {"none": "none", "SAAT": "center-at", "ATRDH": "atrdh"}
TRAINED = {
    "SAAT": "adversarial training of SAAT, with a penalty of 1e-4 on quantisation",
    "ATRDH": "adversarial training of ATRDH",
}


@published.register("saat-attacks")
def attacks() -> list[Published]:
    """mAP and t-mAP under eight attacks at epsilon 8/255, of plain and adversarially trained models.

    Network and objective are not told by the tables (the public code's defaults are AlexNet and DPH).
    """
    found = []
    for row in read_table("saat_attacks.csv"):
        name, preset, steps = ATTACKS[row["attack"]]
        targeted = row["metric"] == "t-MAP"
        attacked: dict[str, Fact] = {
            "epsilon": 8 / 255,
            "attack settings": f"preset {preset}",
            "gradient": "exact",
        }
        attacked |= {} if steps is None else {"steps": steps}
        goal = "targeted" if targeted else "non-targeted"
        found.append(
            Published(
                source=SOURCE,
                asked=Asked(
                    task="hashing",
                    dataset=row["dataset"],
                    score="t_map" if targeted else "map",
                    defence=DEFENCES[row["defence"]],
                    attack=name,
                    goal="none" if name == "none" else goal,
                ),
                value=fraction(row["value_percent"]),
                protocol={
                    "bits": int(row["bits"]),
                    "measure": "mAP@5000 over relevant items retrieved, ties as a sort leaves them",
                    **({"defence": TRAINED[row["defence"]]} if row["defence"] in TRAINED else {}),
                    **({} if name == "none" else attacked),
                },
            )
        )
    return found
