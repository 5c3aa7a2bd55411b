import type { Command } from "../cli/command.js";

export const command: Command = {
  about: "Show where a volume differs from one of its snapshots",
  args: [
    { name: "VOLUME", about: "id or exact name of a volume or snapshot", completes: "volume" },
  ],
  options: {
    since: {
      type: "string",
      value: "SNAPSHOT",
      about: "an earlier snapshot of the same volume; without it all that has data",
      completes: "snapshot",
    },
  },
  notes: [
    "A line for each stretch: its offset and length in bytes, and data or zero.",
    "With --json each is an object of its own.",
  ],
  async run(given, session) {
    const [name = ""] = given.args;
    const { service, kind, id } = await session.findContent(name);
    const since = given.text("since");
    const base = since === undefined ? undefined : (await session.findSnapshot(since)).snapshot.id;
    const client = await session.client();
    const context = await session.context();
    const query = { service, ...(base !== undefined && { since: base }) };
    const { extents } =
      kind === "volume"
        ? await client.volumeChanges({ ...query, volumeID: id }, context)
        : await client.snapshotChanges({ ...query, snapshotID: id }, context);
    for await (const extent of extents) {
      const { offset, length, kind: what } = extent;
      session.line(session.isJson ? JSON.stringify(extent) : `${offset} ${length} ${what}`);
    }
  },
};
