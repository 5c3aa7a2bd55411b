import type { Command } from "../cli/command.js";
import { STANDARD, writeFile } from "./content-file.js";
import { CONTENT_FORMATS, contentOf } from "./content-source.js";

export const command: Command = {
  about: "Write the content of a volume or snapshot into a file",
  args: [
    { name: "VOLUME", about: "id or exact name of a volume or snapshot", completes: "volume" },
    { name: "FILE", about: "where it goes; - is standard output", completes: "file" },
  ],
  options: {
    format: {
      type: "string",
      value: "FORMAT",
      about: "how it is written; default is the driver's own",
      choices: CONTENT_FORMATS,
    },
    force: { type: "boolean", about: "replace a file that is there" },
  },
  notes: [
    "The file gets its name when all of it is there with the SHA-256 that the server has read.",
    "Nobody may write the volume meanwhile; a snapshot can always be read.",
  ],
  async run(given, session) {
    const [name = "", file = ""] = given.args;
    const source = await session.findContent(name);
    const format = given.text("format");
    const content = await contentOf(source, session, { ...(format !== undefined && { format }) });
    const { format: found, lengthBytes = 0 } = content.about;
    const onBytes = session.transfer("download", lengthBytes);
    let bytes = 0;
    await writeFile(file, content.bytes, given.flag("force"), (count) => {
      bytes = count;
      onBytes(count);
    });
    const sha256 = content.sha256();
    if (file === STANDARD) session.note(`${found} ${bytes} bytes, sha256 ${sha256}`);
    else
      session.table(
        { file, format: found, bytes, sha256 },
        ["FILE", "FORMAT", "BYTES", "SHA256"],
        [[file, found, String(bytes), sha256]],
      );
  },
};
