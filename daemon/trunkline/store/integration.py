"""Which row of `integration` a PBX is."""

from typing import Final

# integration.integration_id of a PBX; its external_id is the systemname, or HOST:PORT when it has none.
PBX_INTEGRATION: Final = "asterisk"
