import type { VolumeMap } from "@libstorage/model";
import type { Command } from "../cli/command.js";
import { UsageError } from "../cli/usage-error.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

/** The masks of section 7: all; those attached to this host; those that are free. */
const MASK = { all: 1, attached: 11, available: 17 } as const;

export const command: Command = {
  about: "List volumes",
  args: [],
  options: {
    attached: { type: "boolean", about: "only volumes attached to this host" },
    available: { type: "boolean", about: "only volumes that nobody has" },
    filter: { type: "string", value: "FILTER", about: 'only what matches, such as "(name=web*)"' },
    refresh: { type: "boolean", about: "let the server look again, not answer from memory" },
  },
  notes: [
    "STATE is attached (to this host), available, or in use (by the HOLDER).",
    "SIZE is - for volumes without a limit.",
  ],
  async run(given, session) {
    if (given.flag("attached") && given.flag("available"))
      throw new UsageError("--attached and --available exclude each other");
    const attachments = given.flag("attached")
      ? MASK.attached
      : given.flag("available")
        ? MASK.available
        : MASK.all;
    const filter = given.text("filter");
    const query = {
      attachments,
      ...(filter !== undefined && { filter }),
      ...(given.flag("refresh") && { refresh: true }),
    };
    const { service } = await session.settings();
    const client = await session.client();
    const context = await session.context();
    const byService: Readonly<Record<string, VolumeMap>> =
      service === undefined
        ? await client.volumes(query, undefined, context)
        : { [service]: await client.volumesByService({ service, ...query }, undefined, context) };
    const rows = Object.entries(byService).flatMap(([name, volumes]) =>
      Object.values(volumes).map((volume) => volumeRow(name, volume)),
    );
    session.table(service === undefined ? byService : byService[service], VOLUME_HEAD, rows);
  },
};
