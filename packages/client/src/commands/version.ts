import type { Command } from "../cli/command.js";
import { columns } from "../cli/columns.js";
import { VERSION } from "../version.js";

export const command: Command = {
  about: "Show the versions of this client and of the server",
  args: [],
  options: { client: { type: "boolean", about: "only this client's; asks no server" } },
  async run(given, session) {
    if (given.flag("client")) {
      session.print({ client: VERSION }, () => VERSION);
      return;
    }
    const client = await session.client();
    const answer: unknown = await client
      .helpVersion({}, undefined, await session.context())
      .catch((error: unknown) => {
        session.print({ client: VERSION }, () => `client  ${VERSION}`);
        throw error;
      });
    // Servers of the reference answer an object up to 0.6.
    const semver = (answer as { readonly semver?: unknown } | null)?.semver;
    const server =
      typeof answer === "string" ? answer : typeof semver === "string" ? semver : "unknown";
    session.print({ client: VERSION, server, address: client.address }, () =>
      columns([
        ["client", VERSION],
        ["server", `${server} (${client.address})`],
      ]),
    );
  },
};
