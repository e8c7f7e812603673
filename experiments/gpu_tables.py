"""The tables of benchmarks/gpu.json, for readme.py."""

from __future__ import annotations


def trained(part: dict) -> list[str]:
    """Training beside GPT-2."""
    o, rows = part["settings"], part["rows"]
    whole = f"{-(-o['vocabulary'] // 64) * 64:,}"
    lines = [
        f"`python benchmarks/gpu.py` on one {part['card']} (torch {part['torch']}, "
        f"transformers {part['transformers']}; a large bf16 product reaches "
        f"{part['matrix product, FLOP/s'] / 1e12:.0f} TFLOP/s). Training at {o['layers']} x "
        f"{o['width']}, length {o['length']:,}, batch {o['batch']}, bf16; the share is that of the "
        "card's 989 TFLOP/s which the matrix products reach, all masks counted as seen:",
        "",
        "| case | tokens/s ÷ GPT-2's | compiled ÷ GPT-2's, compiled | flex ÷ GPT-2's "
        "| share of the peak, and compiled | peak memory, GB | host syncs a step |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    base = [rows[f"GPT-2, {way}"]["tokens_per_second"] for way in ("sdpa", "sdpa, compiled")]
    cases = [name.removesuffix(", sdpa") for name in rows if name.endswith(", sdpa")]
    for name in cases:
        plain, fast, flex = (rows.get(f"{name}, {w}") for w in ("sdpa", "sdpa, compiled", "flex"))
        cells = [
            f"{plain['tokens_per_second'] / base[0]:.2f}",
            f"{fast['tokens_per_second'] / base[1]:.2f}",
            f"{flex['tokens_per_second'] / base[0]:.2f}" if flex else "",
            f"{100 * plain['mfu']:.0f} %, {100 * fast['mfu']:.0f} %",
            f"{plain['peak_gb']:.0f}",
            f"{plain['syncs']}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    padded = rows[f"GPT-2, sdpa, compiled, {whole} tokens"]["tokens_per_second"]
    lines += [
        "",
        f"GPT-2 makes {base[0]:,.0f} tokens/s, {base[1]:,.0f} compiled, and {padded:,.0f} compiled "
        f"with a vocabulary of {whole}, whose products a GPU likes (ours are padded to it). One "
        "of the syncs is the benchmark's own.",
    ]
    return lines


def drawn(part: dict) -> list[str]:
    """Generation beside GPT-2."""
    lines = [
        f"{part['settings']['drawn']} new tokens, {part['settings']['samples']} sequences, bf16 "
        f"with float64 draws, on one {part['card']}:",
        "",
        "| case | tokens/s | ÷ GPT-2's without cuDNN | NFE | tokens a call | peak memory, GB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    best = part["rows"]["GPT-2, without cuDNN"]["tokens_per_second"]
    for name, c in part["rows"].items():
        lines.append(
            f"| {name} | {c['tokens_per_second']:,.0f} | {c['tokens_per_second'] / best:.2f} "
            f"| {c['nfe']:.0f} | {c['tokens_per_forward']:.1f} | {c['peak_gb']:.2f} |"
        )
    lines += [
        "",
        *(
            f"{name} was measured {c['measured']}."
            for name, c in part["rows"].items()
            if "measured" in c
        ),
    ]
    return lines


def gpu(result: dict) -> str:
    """Both, of gpu.json."""
    return "\n".join([*trained(result["training"]), "", *drawn(result["generation"])])
