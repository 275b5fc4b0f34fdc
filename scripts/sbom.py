#!/usr/bin/env python3
"""Writes what is inside the program: an SBOM (CycloneDX 1.5) and the licence texts of every crate, from cargo's own metadata.

Only what is linked for the given target and features counts: what tests and build scripts need stays out of the binary. The
licence files are those that the crates carry; a crate without any is listed with its SPDX expression. Libraries that crates
bring in their sources (llama.cpp, ggml, libsamplerate) are named with the files that cover them.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys

FILES = re.compile(r"^(licen[cs]e|copying|notice|copyright|unlicense|authors)([-._].*)?$", re.I)
# Sources that crates carry along: crate, folder within it, name.
VENDORED = [("llama-cpp-sys-2", "llama.cpp", "llama.cpp and ggml"), ("samplerate", "", "libsamplerate"),
            ("libsamplerate-sys", "libsamplerate", "libsamplerate")]


def cargo(*args):
    return subprocess.run([os.environ.get("CARGO", "cargo"), *args], check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(meta, root):
    """Ids of the packages that the root links, itself among them."""
    nodes = {n["id"]: n for n in meta["resolve"]["nodes"]}
    packages = {p["id"]: p for p in meta["packages"]}
    macros = {p["id"] for p in meta["packages"] if any("proc-macro" in t["kind"] for t in p["targets"])}
    found, todo = set(), [root]
    while todo:
        one = todo.pop()
        if one in found or one in macros:
            continue
        found.add(one)
        for dep in nodes[one]["deps"]:
            if any(kind["kind"] is None for kind in dep["dep_kinds"]):
                todo.append(dep["pkg"])
    return sorted((packages[i] for i in found), key=lambda p: (p["name"], p["version"]))


def texts(folder):
    out = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if FILES.match(name):
            files = [path] if os.path.isfile(path) else [os.path.join(path, n) for n in sorted(os.listdir(path))]
            out += [(os.path.relpath(f, folder), open(f, encoding="utf-8", errors="replace").read().strip())
                    for f in files if os.path.isfile(f)]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", default="")
    parser.add_argument("--out", required=True, help="folder for sbom.cdx.json and THIRD-PARTY-LICENCES.txt")
    options = parser.parse_args()
    host = re.search(r"host: (\S+)", subprocess.run(["rustc", "-vV"], stdout=subprocess.PIPE, text=True).stdout).group(1)
    args = ["metadata", "--format-version", "1", "--locked", "--filter-platform", host]
    meta = json.loads(cargo(*args, *(["--features", options.features] if options.features else [])))
    packages = linked(meta, meta["resolve"]["root"])
    lock = open("Cargo.lock", encoding="utf-8").read()
    sums = dict(re.findall(r'name = "([^"]+)"\nversion = "[^"]+"\nsource = "[^"]+"\nchecksum = "([0-9a-f]{64})"', lock))
    root = next(p for p in packages if p["id"] == meta["resolve"]["root"])

    def component(package):
        name, version = package["name"], package["version"]
        entry = {"type": "library", "name": name, "version": version, "purl": f"pkg:cargo/{name}@{version}",
                 "bom-ref": f"pkg:cargo/{name}@{version}"}
        if package.get("license"):
            entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        if name in sums:
            entry["hashes"] = [{"alg": "SHA-256", "content": sums[name]}]
        return entry

    ids = {p["id"]: component(p)["bom-ref"] for p in packages}
    nodes = {n["id"]: n for n in meta["resolve"]["nodes"]}
    bom = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {**component(root), "type": "application"}},
        "components": [component(p) for p in packages if p is not root],
        "dependencies": [{"ref": ids[p["id"]],
                          "dependsOn": sorted(ids[d] for d in nodes[p["id"]]["dependencies"] if d in ids)}
                         for p in packages],
    }
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(options.out, "sbom.cdx.json"), "w", encoding="utf-8") as file:
        json.dump(bom, file, indent=1)
        file.write("\n")

    known, sections, missing = {}, [], []
    for package in packages:
        if package is root:
            continue
        folder = os.path.dirname(package["manifest_path"])
        covered = [(folder, f"{package['name']} {package['version']}")]
        covered += [(os.path.join(folder, sub), f"{title}, within {package['name']} {package['version']}")
                    for crate, sub, title in VENDORED if crate == package["name"] and os.path.isdir(os.path.join(folder, sub))]
        for place, title in covered:
            found = texts(place)
            licence = package.get("license") or "no licence named"
            lines = [f"{title} ({licence})"]
            for name, text in found:
                digest = hashlib.sha256(text.encode()).hexdigest()
                if digest not in known:
                    known[digest] = (len(known) + 1, text)
                lines.append(f"    {name}: text {known[digest][0]}")
            if not found:
                missing.append(title)
                lines.append("    carries no licence file; the licence named above applies")
            sections.append("\n".join(lines))
    with open(os.path.join(options.out, "THIRD-PARTY-LICENCES.txt"), "w", encoding="utf-8") as file:
        file.write("What is inside the program, under which licence, and the texts below.\n\n")
        file.write("\n".join(sections))
        for number, text in sorted(known.values()):
            file.write(f"\n\n{'=' * 100}\ntext {number}\n{'=' * 100}\n\n{text}\n")
    print(f"{len(packages) - 1} crates, {len(known)} licence texts, {len(missing)} crates without a file of their own",
          file=sys.stderr)


if __name__ == "__main__":
    main()
