"""What tests ask of a study's server: the answers they give, and what it keeps of them."""

from diffusioncleft.diffusioncleft_core.study.web.order import Queue
from diffusioncleft.diffusioncleft_core.study.web.signin import Signatures, read_secret

ANSWERS = {"realism": 4, "plausibility": 5}


ANNA = 2
"""The number of the first who is invited: a server that nobody was invited to makes a first link itself."""


def queue_of(server, rater):
    return Queue(Signatures(read_secret(server.study.private)), rater, server.study.items)


def saved(server):
    store = server.store()
    found = {(one.rater, one.item, one.question): one.value for one in store.ratings(server.study)}
    store.close()
    return found
