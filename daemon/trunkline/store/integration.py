"""Which row of `integration` a PBX is."""

from typing import Final

# integration.integration_id of a PBX; its external_id is the systemname ('' when it has none).
PBX_INTEGRATION: Final = "asterisk"
