import type { Export } from "@libstorage/model";
import type { Command } from "../cli/command.js";

function rowOf({
  service,
  volumeID,
  exporter,
  instanceID,
  deviceName,
  sessions,
}: Export): string[] {
  const states = sessions.map(({ address, peer, state }) => `${state} (${address ?? peer})`);
  return [
    volumeID,
    service,
    exporter,
    instanceID.id,
    states.length === 0 ? "-" : states.join(", "),
    deviceName,
  ];
}

export const command: Command = {
  about: "List how other hosts reach volumes, and who is connected",
  args: [],
  options: {},
  notes: ["SESSIONS is - for a host that was let in and is not connected now."],
  async run(_given, session) {
    const { service } = await session.settings();
    const client = await session.client();
    const context = await session.context();
    const all: Readonly<Record<string, readonly Export[]>> =
      service === undefined
        ? await client.exports({}, undefined, context)
        : { [service]: await client.exportsByService({ service }, undefined, context) };
    session.table(
      service === undefined ? all : all[service],
      ["VOLUME", "SERVICE", "EXPORTER", "HOLDER", "SESSIONS", "DEVICE"],
      Object.values(all).flat().map(rowOf),
    );
  },
};
