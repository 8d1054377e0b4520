"""General texts that prompts should leave alone: short searches, questions and sentences about everyday subjects.

Made of lists of subjects and of moulds, all written for this package; the same texts in the same order, always.
"""

from __future__ import annotations

from itertools import chain

A_SUBJECT = 8  # texts

# Field -> its subjects, in a form that fits behind "about"
SUBJECTS = {
    "health": "high blood pressure; seasonal allergies; broken bones; migraine; tooth decay; poor sleep; type 2 "
    "diabetes; back pain; vitamin deficiency; antibiotic resistance; hearing loss; heart failure",
    "biology": "cell division; gene expression; bird migration; photosynthesis; the human gut; protein folding; coral "
    "reefs; stem cells; bees and pollination; viral infection; fungi; the evolution of whales",
    "physics": "heat transfer; electric charge; magnetic fields; radioactive decay; sound waves; superconductors; the "
    "tides of the sea; lasers; gravity; semiconductors; friction; light and colour",
    "engineering": "bridge construction; diesel engines; solar panels; electric motors; steel beams; water treatment; "
    "ship building; battery storage; pumps and valves; vibration; concrete; satellite communication",
    "software": "sorting a list; regular expressions; database indexes; memory leaks; parsing dates; version control; "
    "reading a text file; unit tests; threads and locks; web servers; string formatting; nested dictionaries",
    "data": "missing values; linear regression; neural networks; random sampling; time series; plotting a histogram;"
    " clustering; matrix multiplication; confidence intervals; spreadsheets; recommendation; text search",
    "money": "mortgage rates; income tax; retirement savings; inflation; small business loans; stock markets; car "
    "insurance; household budgets; exchange rates; minimum wage; crowdfunding; credit cards",
    "law": "copyright; rental contracts; data protection; the right to vote; patents; divorce; freedom of speech; "
    "employment contracts; court appeals; gun control; immigration; consumer rights",
    "society": "school uniforms; public transport; nuclear power; newspapers; religious holidays; capital punishment; "
    "gender equality; urban housing; homeschooling; compulsory voting; animal testing; organ donation",
    "history": "the Roman empire; the silk road; the printing press; the industrial revolution; ancient Egypt; the cold"
    " war; the black death; early railways; Viking ships; the French revolution; the space race; medieval "
    "castles",
    "places": "rainforests; volcanoes; the Alps; large rivers; island countries; deserts; national parks; the Arctic; "
    "earthquakes; capital cities; coastal erosion; monsoon rain",
    "food": "sourdough bread; green tea; vegetarian meals; cheese making; food allergies; olive oil; home canning; "
    "spicy soups; chocolate; rice cooking; leftovers; coffee roasting",
    "home": "leaking taps; indoor plants; wooden floors; kitchen lighting; composting; winter heating; house paint; "
    "mould on walls; washing machines; garden fences; noisy neighbours; moving house",
    "leisure": "chess openings; classical guitar; marathon training; film festivals; watercolour painting; hiking "
    "boots; science fiction novels; board games; street photography; swimming lessons; football rules; jazz",
}

MOULDS = (
    "what is known about {}",
    "{}",
    "how does one learn more about {}?",
    "A short introduction to {}.",
    "common mistakes with {}",
    "{} explained in simple words",
    "Which problems come up with {}, and what helps against them?",
    "Experts still disagree about {}.",
    "best book on {}",
    "why do people care about {}",
    "The report compares several views of {} and draws a careful conclusion.",
    "cost of {}",
    "is there any evidence on {}?",
    "{} for beginners",
    "We measured the effects of {} over ten years.",
    "My first question is about {}.",
    "recent research on {}",
    "{} pros and cons",
    "There is no simple rule for {}, whatever the guides say.",
    "step by step: {}",
    "Interest in {} has grown in most countries since the last century.",
    "who decides about {}",
    "{} and the environment",
    "difference between good and bad advice on {}",
    "Nothing that was written about {} prepared us for this.",
    "{} statistics by year",
    "when did {} become important?",
    "Young people should be taught about {} in school.",
    "tools and methods for {}",
    "This claim about {} is not supported by the data.",
    "{} in the news",
)


def general_texts() -> list[str]:
    """About 1,300 different texts: every subject in several moulds, and neighbouring subjects in different ones."""
    subjects = [subject for listed in SUBJECTS.values() for subject in listed.split("; ")]
    moulds = (A_SUBJECT * number + place for number in range(len(subjects)) for place in range(A_SUBJECT))
    each = chain.from_iterable([subject] * A_SUBJECT for subject in subjects)
    return [MOULDS[mould % len(MOULDS)].format(subject) for mould, subject in zip(moulds, each, strict=True)]
