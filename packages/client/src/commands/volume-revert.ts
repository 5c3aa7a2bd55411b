import type { Snapshot, Volume } from "@libstorage/model";
import type { Command } from "../cli/command.js";
import type { Session } from "../cli/session.js";
import { filterFor, findNamed } from "../host/volume-names.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

export const command: Command = {
  about: "Bring a volume back to one of its snapshots",
  args: [
    { name: "VOLUME", about: "its id or exact name", completes: "volume" },
    { name: "SNAPSHOT", about: "its id or exact name", completes: "snapshot" },
  ],
  options: {},
  notes: [
    "What was written to the volume since then is lost; make a snapshot first to keep it.",
    "All snapshots stay. The volume must be attached nowhere.",
  ],
  async run(given, session) {
    const [name = "", snapshotName = ""] = given.args;
    const { service, volume } = await session.findVolume(name, 0);
    const snapshot = await findOwn(session, service, volume, snapshotName);
    const client = await session.client();
    const reverted = await client.volumeRevert(
      { service, volumeID: volume.id },
      { snapshotID: snapshot.id },
      await session.longContext(),
    );
    session.table(reverted, VOLUME_HEAD, [volumeRow(service, reverted)]);
  },
};

/** Each volume may have a snapshot of that name: the volume's own counts before those of others. */
async function findOwn(
  session: Session,
  service: string,
  volume: Volume,
  name: string,
): Promise<Snapshot> {
  const client = await session.client();
  const filter = filterFor(name);
  const query = { service, ...(filter !== undefined && { filter }) };
  const all = await client.snapshotsByService(query, undefined, await session.context());
  const own = Object.fromEntries(
    Object.entries(all).filter(([, { volumeID }]) => volumeID === volume.id),
  );
  const among = Object.keys(own).length > 0 ? own : all;
  return findNamed("snapshot", name, { [service]: among }).object;
}
