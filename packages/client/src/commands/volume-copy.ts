import { UsageError } from "../cli/usage-error.js";
import type { Command, Given } from "../cli/command.js";
import type { Session } from "../cli/session.js";
import { copyTo, serviceAt } from "./copy-to-host.js";
import { OPT_OPTION, readOpts } from "./values.js";
import { refuseTaken } from "./volume-create.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

export const command: Command = {
  about: "Copy a volume with its data",
  args: [
    {
      name: "VOLUME",
      about: "its id or exact name; with --to-host a snapshot will do",
      completes: "volume",
    },
    { name: "NAME", about: "the copy's name" },
  ],
  options: {
    opt: OPT_OPTION,
    to: { type: "string", value: "SERVICE", about: "make it in this service; default is the same" },
    "to-host": {
      type: "string",
      value: "ADDRESS",
      about: "make it at this server: tcp://HOST:PORT or unix:///PATH",
    },
    "to-config": {
      type: "string",
      value: "FILE",
      about: "the configuration for that server, where its certificates are others",
      completes: "file",
    },
    incremental: {
      type: "boolean",
      about: "with --to-host and a snapshot: send what differs from the last one that was sent so",
    },
    "allow-duplicate": { type: "boolean", about: "make it even if the name is taken" },
  },
  notes: [
    "With --to-host the data go through this client, with their SHA-256 checked at both ends.",
    "  libstorage volume copy web-monday web --to-host tcp://other:7979 --to archive --incremental",
  ],
  async run(given, session) {
    const isToHost = given.text("to-host") !== undefined || given.text("to-config") !== undefined;
    if (given.flag("incremental") && !isToHost)
      throw new UsageError("--incremental goes with --to-host");
    await (isToHost ? copyToHost : copyHere)(given, session);
  },
};

async function copyHere(given: Given, session: Session): Promise<void> {
  const [name = "", volumeName = ""] = given.args;
  const { service, volume } = await session.findVolume(name, 0);
  const to = given.text("to");
  const target = to ?? service;
  if (!given.flag("allow-duplicate")) await refuseTaken(session, target, volumeName);
  const client = await session.client();
  const opts = readOpts(given.texts("opt"));
  const copy = await client.volumeCopy(
    { service, volumeID: volume.id },
    {
      volumeName,
      ...(to !== undefined && { service: to }),
      ...(opts !== undefined && { opts }),
    },
    await session.longContext(),
  );
  session.table(copy, VOLUME_HEAD, [volumeRow(target, copy)]);
}

async function copyToHost(given: Given, session: Session): Promise<void> {
  const [from = "", name = ""] = given.args;
  const source = await session.findContent(from);
  const isIncremental = given.flag("incremental");
  if (isIncremental && source.kind === "volume")
    throw new UsageError("--incremental needs a snapshot: a volume changes while others are made");
  const client = await session.otherClient(given.text("to-host"), given.text("to-config"));
  try {
    const service = await serviceAt(client, given.text("to"));
    if (!given.flag("allow-duplicate")) await refuseTaken(session, service, name, client);
    const opts = readOpts(given.texts("opt"));
    const copy = await copyTo(source, { client, service, name, opts }, session, isIncremental);
    session.table(copy, VOLUME_HEAD, [volumeRow(service, copy)]);
  } finally {
    client.close();
  }
}
