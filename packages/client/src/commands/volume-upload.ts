import { UsageError } from "../cli/usage-error.js";
import type { Command } from "../cli/command.js";
import { openFile } from "./content-file.js";
import { CONTENT_FORMATS } from "./content-source.js";
import { OPT_OPTION, readOpts, readSize } from "./values.js";
import { refuseTaken } from "./volume-create.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

export const command: Command = {
  about: "Create a volume with the content of a file",
  args: [
    {
      name: "FILE",
      about: "what volume download has written; - is standard input",
      completes: "file",
    },
    { name: "NAME", about: "the volume's name" },
  ],
  options: {
    format: {
      type: "string",
      value: "FORMAT",
      about: "what the file is; it is never found out from its bytes",
      choices: CONTENT_FORMATS,
    },
    size: { type: "string", value: "SIZE", about: "like 10G; default is what the content needs" },
    opt: OPT_OPTION,
    "allow-duplicate": { type: "boolean", about: "make it even if the name is taken" },
  },
  notes: ["Nothing is left of it when it breaks off, or arrives with another SHA-256."],
  async run(given, session) {
    const [path = "", name = ""] = given.args;
    const format = given.text("format");
    if (format === undefined)
      throw new UsageError(`--format is missing: one of ${CONTENT_FORMATS.join(", ")}`);
    const size = given.text("size");
    const opts = readOpts(given.texts("opt"));
    const service = await session.serviceName();
    if (!given.flag("allow-duplicate")) await refuseTaken(session, service, name);
    const file = await openFile(path);
    const onBytes = session.transfer("upload", file.lengthBytes ?? 0);
    const client = await session.client();
    const volume = await client.volumeUpload(
      {
        service,
        name,
        format,
        ...(size !== undefined && { size: readSize(size) }),
        ...(opts !== undefined && { opts: JSON.stringify(opts) }),
      },
      { ...file, onBytes },
      await session.context(),
    );
    session.table(volume, VOLUME_HEAD, [volumeRow(service, volume)]);
  },
};
