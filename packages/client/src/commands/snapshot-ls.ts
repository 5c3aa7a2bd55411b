import type { SnapshotMap } from "@libstorage/model";
import type { Command } from "../cli/command.js";
import { SNAPSHOT_HEAD, snapshotRow } from "./volume-view.js";

export const command: Command = {
  about: "List snapshots",
  args: [],
  options: {
    volume: {
      type: "string",
      value: "VOLUME",
      about: "only those of this volume",
      completes: "volume",
    },
    filter: {
      type: "string",
      value: "FILTER",
      about: 'only what matches, such as "(name=nightly*)"',
    },
    refresh: { type: "boolean", about: "let the server look again, not answer from memory" },
  },
  async run(given, session) {
    const client = await session.client();
    const context = await session.context();
    const volume = given.text("volume");
    const of = volume === undefined ? undefined : await session.findVolume(volume, 0);
    const filter = given.text("filter");
    const query = {
      ...(filter !== undefined && { filter }),
      ...(given.flag("refresh") && { refresh: true }),
    };
    const service = of?.service ?? (await session.settings()).service;
    const all: Readonly<Record<string, SnapshotMap>> =
      service === undefined
        ? await client.snapshots(query, undefined, context)
        : { [service]: await client.snapshotsByService({ service, ...query }, undefined, context) };
    const wanted = Object.entries(all).map(
      ([name, snapshots]) =>
        [
          name,
          Object.fromEntries(
            Object.entries(snapshots).filter(
              ([, { volumeID }]) => of === undefined || volumeID === of.volume.id,
            ),
          ),
        ] as const,
    );
    const byService: Readonly<Record<string, SnapshotMap>> = Object.fromEntries(wanted);
    const rows = wanted.flatMap(([name, snapshots]) =>
      Object.values(snapshots).map((snapshot) => snapshotRow(name, snapshot)),
    );
    session.table(service === undefined ? byService : byService[service], SNAPSHOT_HEAD, rows);
  },
};
