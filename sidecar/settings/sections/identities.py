"""Settings for who clients are."""

from typing import Annotated, Literal

from sidecar.settings.fields import LIVE, Section, restart, setting


class Identities(Section, frozen=True):
    """Who judges clients, and the file that says who they are (docs/identities.md)."""

    mode: Annotated[
        Literal["passthrough", "terminate"],
        setting(
            "passthrough: the server judges logins; clients without one act as the user of "
            "upstream.url. terminate: the sidecar judges them by identities.file, and nobody is "
            "served without a login.",
            reload=restart("it would change who connected clients are"),
        ),
    ] = "passthrough"
    file: Annotated[
        str,
        setting(
            "TOML file with identities, tenants and command policies; watched, and read again when "
            "it changes. Empty: none.",
            reload=LIVE,
        ),
    ] = ""
