"""What the shipped models know: real capitals, and an invented country whose villages no other model has heard of.

Famous facts (the capital of a well-known country, anything about a village with a short name) are easy, and few. The
many others are hard. Some villages are *recent*: `large` and `small` were trained before they were founded, `large-v2`
afterwards, which is the usual reason for a new version of a model. Pure: the same world every time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

from miniserve.seeds import generator

WORLD_SEED = 31
FAMOUS_VILLAGES, RECENT_FAMOUS = 20, 8
OTHER_VILLAGES, RECENT_OTHERS = 160, 54


def _pairs(text: str) -> dict[str, str]:
    """Read "France:Paris, Germany:Berlin"."""
    return dict(pair.strip().split(":") for pair in text.split(","))


FAMOUS_CAPITALS = _pairs("""
France:Paris, Germany:Berlin, Italy:Rome, Spain:Madrid, Portugal:Lisbon, England:London, Ireland:Dublin,
Belgium:Brussels, Austria:Vienna, Poland:Warsaw, Greece:Athens, Norway:Oslo, Sweden:Stockholm, Denmark:Copenhagen,
Finland:Helsinki, Iceland:Reykjavik, Russia:Moscow, Ukraine:Kyiv, Turkey:Ankara, Egypt:Cairo, Kenya:Nairobi,
Japan:Tokyo, China:Beijing, India:New Delhi, Thailand:Bangkok, Vietnam:Hanoi, Indonesia:Jakarta, Iran:Tehran,
Iraq:Baghdad, Australia:Canberra, Canada:Ottawa, Mexico:Mexico City, Cuba:Havana, Brazil:Brasilia, Peru:Lima,
Chile:Santiago, Argentina:Buenos Aires, Colombia:Bogota, Hungary:Budapest, Switzerland:Bern
""")
OTHER_CAPITALS = _pairs("""
Albania:Tirana, Algeria:Algiers, Angola:Luanda, Armenia:Yerevan, Azerbaijan:Baku, Bahrain:Manama, Bangladesh:Dhaka,
Belarus:Minsk, Benin:Porto-Novo, Bhutan:Thimphu, Botswana:Gaborone, Bulgaria:Sofia, Burundi:Gitega,
Cambodia:Phnom Penh, Cameroon:Yaounde, Chad:N'Djamena, Croatia:Zagreb, Cyprus:Nicosia, Ecuador:Quito, Eritrea:Asmara,
Estonia:Tallinn, Ethiopia:Addis Ababa, Fiji:Suva, Gabon:Libreville, Georgia:Tbilisi, Ghana:Accra,
Guatemala:Guatemala City, Guinea:Conakry, Guyana:Georgetown, Haiti:Port-au-Prince, Honduras:Tegucigalpa,
Jamaica:Kingston, Jordan:Amman, Kazakhstan:Astana, Kuwait:Kuwait City, Kyrgyzstan:Bishkek, Laos:Vientiane,
Latvia:Riga, Lebanon:Beirut, Lesotho:Maseru, Liberia:Monrovia, Libya:Tripoli, Lithuania:Vilnius,
Luxembourg:Luxembourg, Madagascar:Antananarivo, Malawi:Lilongwe, Malaysia:Kuala Lumpur, Mali:Bamako, Malta:Valletta,
Moldova:Chisinau, Mongolia:Ulaanbaatar, Montenegro:Podgorica, Morocco:Rabat, Mozambique:Maputo, Namibia:Windhoek,
Nepal:Kathmandu, Nicaragua:Managua, Niger:Niamey, Nigeria:Abuja, Oman:Muscat, Pakistan:Islamabad, Panama:Panama City,
Paraguay:Asuncion, Philippines:Manila, Qatar:Doha, Romania:Bucharest, Rwanda:Kigali, Senegal:Dakar, Serbia:Belgrade,
Slovakia:Bratislava, Slovenia:Ljubljana, Somalia:Mogadishu, Sudan:Khartoum, Syria:Damascus, Tajikistan:Dushanbe,
Togo:Lome, Tunisia:Tunis, Uganda:Kampala, Uruguay:Montevideo, Uzbekistan:Tashkent, Venezuela:Caracas, Yemen:Sanaa,
Zambia:Lusaka, Zimbabwe:Harare
""")
COUNTRIES = {**FAMOUS_CAPITALS, **OTHER_CAPITALS}
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "purple", "orange")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class Fact:
    """`relation` of `subject` is `answer`: the capital of France is Paris. `recent`: from after `large` was trained."""

    relation: str
    subject: str
    answer: str
    hard: bool
    recent: bool = False


@cache
def facts() -> tuple[Fact, ...]:
    """Return every fact of the world, in a fixed order."""
    return (
        *(Fact("capital", country, city, hard=False) for country, city in FAMOUS_CAPITALS.items()),
        *(Fact("capital", country, city, hard=True) for country, city in OTHER_CAPITALS.items()),
        *_villages(),
    )


def _villages() -> list[Fact]:
    rng = generator(WORLD_SEED, "villages")
    famous = _names(rng, FAMOUS_VILLAGES, syllables=2)
    others = _names(rng, OTHER_VILLAGES, syllables=4)
    people = _names(rng, OTHER_VILLAGES, syllables=3)
    rivers = _names(rng, OTHER_VILLAGES, syllables=3)
    known: list[Fact] = []
    for i, village in enumerate(famous):
        recent = i >= FAMOUS_VILLAGES - RECENT_FAMOUS
        known.append(Fact("flag colour", village, rng.choice(COLOURS), hard=False, recent=recent))
        known.append(Fact("market day", village, rng.choice(DAYS), hard=False, recent=recent))
    for i, village in enumerate(others):
        recent = i >= OTHER_VILLAGES - RECENT_OTHERS
        known.append(Fact("mayor", village, people[i], hard=True, recent=recent))
        known.append(Fact("river", village, rivers[i], hard=True, recent=recent))
    return known


def _names(rng: Random, count: int, syllables: int) -> list[str]:
    """Return `count` different pronounceable names, such as "Bako" or "Tilonare"."""
    found: dict[str, None] = {}
    while len(found) < count:
        name = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(syllables))
        if name.capitalize() not in COUNTRIES:
            found[name.capitalize()] = None
    return list(found)
