import type { VolumeUpdateRequest } from "@libstorage/model";
import type { Command } from "../cli/command.js";
import { UsageError } from "../cli/usage-error.js";
import { readCount, readOpts } from "./values.js";
import { optional } from "./volume-create.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

export const command: Command = {
  about: "Change the name, the fields and the like of a volume, in use or not",
  args: [{ name: "VOLUME", about: "its id or exact name", completes: "volume" }],
  options: {
    name: { type: "string", value: "NAME", about: "its new name" },
    type: { type: "string", value: "TYPE", about: "the volume type, if the driver can change it" },
    iops: {
      type: "string",
      value: "NUMBER",
      about: "the I/O operations a second, if the driver can change them",
    },
    field: {
      type: "string",
      multiple: true,
      value: "KEY=VALUE",
      about: "sets a field; may be given several times",
    },
    unset: {
      type: "string",
      multiple: true,
      value: "KEY",
      about: "takes a field away; may be given several times",
    },
  },
  notes: [
    "What is not named stays. `libstorage service inspect` tells what a service can change.",
    "Example: libstorage volume update web1 --field owner=web --unset ticket",
  ],
  async run(given, session) {
    const [name = ""] = given.args;
    const set = readOpts(given.texts("field"), "field");
    const unset = given.texts("unset").map((key) => [key, null] as const);
    const fields = { ...set, ...Object.fromEntries(unset) };
    const request: VolumeUpdateRequest = {
      ...optional("name", given.text("name")),
      ...optional("type", given.text("type")),
      ...optional("iops", readCount("iops", given.text("iops"))),
      ...(Object.keys(fields).length > 0 && { fields }),
    };
    if (Object.keys(request).length === 0)
      throw new UsageError("nothing to change: give --name, --type, --iops, --field or --unset");
    const { service, volume } = await session.findVolume(name, 0);
    const client = await session.client();
    const params = { service, volumeID: volume.id };
    const updated = await client.volumeUpdate(params, request, await session.context());
    session.table(updated, VOLUME_HEAD, [volumeRow(service, updated)]);
  },
};
