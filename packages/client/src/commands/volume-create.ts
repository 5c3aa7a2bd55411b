import { StorageError } from "@libstorage/model";
import type { Client } from "../client.js";
import type { Command } from "../cli/command.js";
import type { Session } from "../cli/session.js";
import { OPT_OPTION, readCount, readOpts, readSize } from "./values.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

export const NEW_VOLUME_OPTIONS = {
  size: { type: "string", value: "SIZE", about: "such as 10G; whole GiB" },
  type: { type: "string", value: "TYPE", about: "the volume type, if the driver has several" },
  zone: { type: "string", value: "ZONE", about: "the availability zone" },
  iops: { type: "string", value: "NUMBER", about: "the I/O operations a second" },
  encrypted: { type: "boolean", about: "encrypt the volume" },
  opt: OPT_OPTION,
  "allow-duplicate": { type: "boolean", about: "make it even if the name is taken" },
} as const;

/** A second volume of a name can be used by its id only, which is seldom what was meant. */
export async function refuseTaken(
  session: Session,
  service: string,
  name: string,
  at?: Client,
): Promise<void> {
  const { filterFor } = await import("../host/volume-names.js");
  const filter = filterFor(name);
  const client = at ?? (await session.client());
  const volumes = await client.volumesByService(
    { service, ...(filter !== undefined && { filter }) },
    undefined,
    await session.context(),
  );
  const taken = Object.values(volumes).find((volume) => volume.name === name || volume.id === name);
  if (taken !== undefined)
    throw new StorageError(
      "already-exists",
      `service ${service} has a volume called ${name} already (${taken.id}); choose another name, or say --allow-duplicate`,
      { volumeID: taken.id },
    );
}

export const command: Command = {
  about: "Create a volume",
  args: [{ name: "NAME", about: "the new volume's name" }],
  options: NEW_VOLUME_OPTIONS,
  notes: ["Example: libstorage volume create web1 --size 10G --opt owner=web"],
  async run(given, session) {
    const [name = ""] = given.args;
    const size = given.text("size");
    const body = {
      name,
      ...optional("availabilityZone", given.text("zone")),
      ...optional("iops", readCount("iops", given.text("iops"))),
      ...optional("type", given.text("type")),
      ...optional("opts", readOpts(given.texts("opt"))),
      ...(size !== undefined && { size: readSize(size) }),
      ...(given.flag("encrypted") && { encrypted: true }),
    };
    const service = await session.serviceName();
    if (!given.flag("allow-duplicate")) await refuseTaken(session, service, name);
    const client = await session.client();
    const volume = await client.volumeCreate({ service }, body, await session.longContext());
    session.table(volume, VOLUME_HEAD, [volumeRow(service, volume)]);
  },
};

/** A member that is left out when there is nothing to say. */
export function optional<K extends string, T>(name: K, value: T | undefined): { [P in K]?: T } {
  return value === undefined ? {} : ({ [name]: value } as { [P in K]: T });
}
