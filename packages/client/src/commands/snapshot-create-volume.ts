import { ATTACHMENT_STATE } from "@libstorage/model";
import type { Command } from "../cli/command.js";
import { readCount, readOpts, readSize } from "./values.js";
import { NEW_VOLUME_OPTIONS, optional, refuseTaken } from "./volume-create.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

const { encrypted: _encrypted, ...options } = NEW_VOLUME_OPTIONS;

export const command: Command = {
  about: "Create a volume from a snapshot",
  args: [
    { name: "SNAPSHOT", about: "its id or exact name", completes: "snapshot" },
    { name: "NAME", about: "the new volume's name" },
  ],
  options,
  async run(given, session) {
    const [from = "", name = ""] = given.args;
    const size = given.text("size");
    const body = {
      name,
      ...optional("availabilityZone", given.text("zone")),
      ...optional("iops", readCount("iops", given.text("iops"))),
      ...optional("type", given.text("type")),
      ...optional("opts", readOpts(given.texts("opt"))),
      ...(size !== undefined && { size: readSize(size) }),
    };
    const { service, snapshot } = await session.findSnapshot(from);
    if (!given.flag("allow-duplicate")) await refuseTaken(session, service, name);
    const client = await session.client();
    const volume = await client.volumeCreateFromSnapshot(
      { service, snapshotID: snapshot.id },
      body,
      await session.longContext(),
    );
    // The API tells no state here; a volume that was made just now is nobody's.
    const row = volumeRow(service, { attachmentState: ATTACHMENT_STATE.available, ...volume });
    session.table(volume, VOLUME_HEAD, [row]);
  },
};
