"""Device side of test_baseline_debian.py: the Debian pack on prepared file systems.

micropython debian_roots.py FILE   FILE holds a JSON list of [root, owners, settings]: owners are
{path: [user, group]} of what is not root's, or null for the machine's own file system. Prints a
JSON line for each: [[check_id, result, error], …].
"""

import json
import sys

import vedette.baseline.debian  # noqa: F401 - once, and not for each file system
from vedette import baseline
from vedette.ports.linux_facts import Facts
from vedette.settings import Settings


class Prepared(Facts):
    """Whoever prepared the files: they are said to be root's."""

    def __init__(self, agent, root, owners):
        super().__init__(agent, root)
        self.owners = owners

    def stat(self, path):
        user, group = self.owners.get(path, (0, 0))
        return super().stat(path)[0], user, group


class Agent:
    """What `results` needs of an agent."""

    def __init__(self, settings):
        self.settings = Settings({})
        self.settings.apply(settings)


with open(sys.argv[1]) as file:
    for root, owners, settings in json.load(file):
        agent = Agent(settings)
        facts = Facts(agent) if owners is None else Prepared(agent, root, owners)
        found = baseline.results(agent, facts)
        print(json.dumps([result[:3] for result in found if result]))
