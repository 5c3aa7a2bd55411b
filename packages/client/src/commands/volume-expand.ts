import type { Command } from "../cli/command.js";
import type { Session } from "../cli/session.js";
import { UsageError } from "../cli/usage-error.js";
import { readSize } from "./values.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

export const command: Command = {
  about: "Make a volume larger",
  args: [{ name: "VOLUME", about: "its id or exact name", completes: "volume" }],
  options: { size: { type: "string", value: "SIZE", about: "the new size, such as 20G (needed)" } },
  async run(given, session) {
    const [name = ""] = given.args;
    const text = given.text("size");
    if (text === undefined) throw new UsageError("--size is missing: the new size, such as 20G");
    const size = readSize(text);
    const { service, volume } = await session.findVolume(name, 0);
    const client = await session.client();
    const grown = await client.volumeExpand(
      { service, volumeID: volume.id },
      { size },
      await session.longContext(),
    );
    const done = await fitHere(session, service, volume.id);
    if (done !== undefined && done !== "") session.note(done);
    session.table(grown, VOLUME_HEAD, [volumeRow(service, grown)]);
  },
};

/** Where the volume is on this host, its file system follows. Elsewhere it does so with the next mount. */
async function fitHere(
  session: Session,
  service: string,
  volumeID: string,
): Promise<string | undefined> {
  const { type } = await session.settings();
  if (type === "controller") return undefined;
  const volumes = await session.hostVolumes(service);
  return volumes.expanded(volumeID, await session.context());
}
