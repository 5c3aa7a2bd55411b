import type { Command } from "../cli/command.js";
import { columns } from "../cli/columns.js";
import { details, holderOf, sizeOf, stateOf } from "./volume-view.js";

export const command: Command = {
  about: "Show all that is known of a volume",
  args: [{ name: "VOLUME", about: "its id or exact name", completes: "volume" }],
  options: {},
  async run({ args: [name = ""] }, session) {
    const { service, volume } = await session.findVolume(name);
    const fields = Object.entries(volume.fields ?? {}).map(([key, value]) => `${key}=${value}`);
    const devices = (volume.attachments ?? []).map(
      ({ instanceID, deviceName, status }) =>
        `${instanceID?.id ?? "?"} as ${deviceName === "" ? "(no device)" : deviceName} (${status})`,
    );
    session.print(volume, () =>
      columns(
        details([
          ["id", volume.id],
          ["name", volume.name],
          ["service", service],
          ["size", sizeOf(volume.size)],
          ["state", stateOf(volume)],
          ["holder", holderOf(volume)],
          ["attachments", devices.join("; ")],
          ["type", volume.type],
          ["zone", volume.availabilityZone],
          ["iops", volume.iops === undefined ? undefined : String(volume.iops)],
          ["encrypted", volume.encrypted === true ? "yes" : undefined],
          ["network name", volume.networkName],
          ["status", volume.status],
          ["fields", fields.join(" ")],
        ]),
      ),
    );
  },
};
