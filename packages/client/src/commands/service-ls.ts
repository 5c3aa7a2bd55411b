import type { Command } from "../cli/command.js";

export const command: Command = {
  about: "List the server's services",
  args: [],
  options: {},
  async run(_given, session) {
    const client = await session.client();
    const services = await client.services({}, undefined, await session.context());
    const rows = Object.values(services).map(({ name, driver }) => [
      name,
      driver.name,
      driver.type,
    ]);
    session.table(services, ["NAME", "DRIVER", "TYPE"], rows);
  },
};
