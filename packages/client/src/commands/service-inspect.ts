import type { Command } from "../cli/command.js";
import { columns } from "../cli/columns.js";
import { details } from "./volume-view.js";

export const command: Command = {
  about: "Show a service, and who this host is to it",
  args: [{ name: "SERVICE", about: "its name", completes: "service" }],
  options: {},
  async run({ args: [name = ""] }, session) {
    const volumes = await session.hostVolumes(name.toLowerCase());
    const { info, instanceID } = await volumes.host.identity(await session.context());
    const { driver, instance } = info;
    session.print(info, () =>
      columns(
        details([
          ["name", info.name],
          ["driver", driver.name],
          ["type", driver.type],
          [
            "device names",
            driver.nextDevice?.ignore === true ? "chosen by the service" : undefined,
          ],
          ["this host", instanceID.id],
          ["instance", instance?.name],
          ["region", instance?.region],
          ["abilities", info.abilities?.join(", ")],
          ["can change", info.mutable?.join(", ")],
        ]),
      ),
    );
  },
};
