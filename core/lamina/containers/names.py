"""Names for containers that nobody named."""

from __future__ import annotations

import re
import secrets

from lamina.errors import InvalidName

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}")

_HOW = """
able agile amber ample azure balmy bold brave brisk bright calm candid clever cosy crisp curious daring deft
eager early easy fair fleet fond frank fresh gentle glad golden grand happy hardy honest humble jolly keen
kind light lively lucid lucky mellow merry mild modest neat nimble noble patient placid plucky polite proud
quick quiet ready robust rustic serene sharp silent silver smart snug sober solid spry steady stout sturdy
subtle sunny swift tidy tranquil true upbeat vivid warm wise witty young zesty
""".split()  # noqa: SIM905  # reads better than two hundred quotes

_WHO = """
archimedes aryabhata bassi blackwell borlaug bose cavendish chandra cori curie darwin dirac elion euclid euler
faraday fermi feynman franklin galileo gauss germain goodall hamilton hawking herschel hertz hodgkin hopper
hypatia jemison johnson joliot kepler khayyam kovalevskaya lamarr lavoisier leavitt liskov lovelace maxwell
mayer mcclintock meitner mendel mirzakhani mitchell nobel noether nightingale pasteur payne perlman planck
ramanujan ride ritchie rubin sammet shannon sinoussi somerville tesla tharp thompson tu turing villani volta
wiles wing wu yalow
""".split()  # noqa: SIM905  # reads better than two hundred quotes


def random_name() -> str:
    """Two words that are easy to say and to tell apart: `brave_hopper`."""
    return f"{secrets.choice(_HOW)}_{secrets.choice(_WHO)}"


def check_name(name: str) -> str:
    """The name itself; InvalidName if docker would not take it."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r}: a container's name is two or more of a-z A-Z 0-9 _ . - and begins with a letter or digit"
        )
    return name
