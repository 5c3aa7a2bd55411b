/** Copies from one server to another: the content goes through this client. */
import { StorageError } from "@libstorage/model";
import type { Volume } from "@libstorage/model";
import type { Client } from "../client.js";
import type { ContentSource, Session } from "../cli/session.js";
import { contentOf } from "./content-source.js";

export interface Target {
  readonly client: Client;
  readonly service: string;
  readonly name: string;
  readonly opts: Readonly<Record<string, string>> | undefined;
}

/** The service that was named, or the only one there is. */
export async function serviceAt(client: Client, named: string | undefined): Promise<string> {
  if (named !== undefined) return named;
  const names = Object.keys(await client.services({}, undefined, {}));
  const [only] = names;
  if (only !== undefined && names.length === 1) return only;
  throw new StorageError(
    "invalid-argument",
    `the server ${client.address} has ${names.length} services: name one with --to (${names.join(", ")})`,
  );
}

/**
 * @param isIncremental whether the target keeps what an increment can build on, and gets an increment where
 *   both sides have something to build on
 */
export async function copyTo(
  source: ContentSource,
  { client, service, name, opts }: Target,
  session: Session,
  isIncremental: boolean,
): Promise<Volume> {
  const context = await session.context();
  const query = { service, abilities: true, contents: true };
  const info = await client.serviceInspect(query, undefined, { signal: session.signal });
  const formats = info.contentFormats ?? [];
  if (formats.length === 0)
    throw new StorageError(
      "unimplemented",
      `service ${service} of ${client.address} takes no content as a stream`,
    );
  const have = isIncremental ? (info.contents ?? []) : [];
  const content = await contentOf(source, session, {
    format: formats.join(","),
    ...(have.length > 0 && { have: have.join(",") }),
  });
  const { format, lengthBytes, sizeBytes, contentID, parentID } = content.about;
  if (parentID !== undefined) session.note(`an increment of ${parentID}`);
  const all = { ...source.fields, ...opts };
  return client.volumeUpload(
    {
      service,
      name,
      format,
      // A disk is as large as its content; the size of a folder is a limit of its own.
      ...(sizeBytes === undefined && source.sizeGiB !== undefined && { size: source.sizeGiB }),
      ...(Object.keys(all).length > 0 && { opts: JSON.stringify(all) }),
      ...(isIncremental && contentID !== undefined && { contentID }),
      ...(parentID !== undefined && { parentID }),
    },
    {
      bytes: content.bytes,
      ...(lengthBytes !== undefined && { lengthBytes }),
      onBytes: session.transfer("copy", lengthBytes ?? 0),
    },
    context,
  );
}
