"""The parts that say who gets in, and what each client may do."""

from fanline.engine.access.access import Access
from fanline.engine.access.application.authorizers import Authorizers
from fanline.engine.access.application.handlers import HandlerClient
from fanline.engine.access.keys.api_keys import ApiKeys
from fanline.engine.access.keys.key_holders import KeyHolders
from fanline.engine.access.permissions import Permissions
from fanline.engine.access.revoked.removals import Removals
from fanline.engine.access.routes import Routes
from fanline.engine.access.user_places import UserPlaces
from fanline.engine.assembly.basis import Basis
from fanline.engine.connections.taking_back import TakingBack


class Admittance:
    """Of one worker."""

    def __init__(self, basis: Basis, access: Access) -> None:
        bus, settings = basis.bus, basis.settings
        self.access = access
        self.handlers = access.handlers or HandlerClient(bus)
        self.places = UserPlaces(bus, basis.members, access.check_revoked, basis.hits)
        self.routes = Routes(settings.routes, settings.idle_timeout, settings.heartbeat, access.settings.connections)
        self.removals = Removals()
        authorizers = Authorizers(self.handlers, settings.namespaces, self.removals)
        self.permissions = Permissions(basis.namespaces, authorizers, closed=access.closed)
        self.key_holders = KeyHolders(ApiKeys(bus))
        self.taking_back = TakingBack(bus, access, authorizers, self.removals, basis.registry, basis.audit)
