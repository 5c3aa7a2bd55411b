/** Volumes and snapshots whose content is wanted. */
import { CONTENT_TYPES } from "@libstorage/model";
import type { ContentSource, Session } from "../cli/session.js";
import type { ContentStream } from "../content.js";

export const CONTENT_FORMATS: readonly string[] = Object.keys(CONTENT_TYPES);

export async function contentOf(
  { service, kind, id }: ContentSource,
  session: Session,
  wish: { readonly format?: string; readonly have?: string },
): Promise<ContentStream> {
  const client = await session.client();
  const context = await session.context();
  return kind === "volume"
    ? client.volumeContent({ service, volumeID: id, ...wish }, context)
    : client.snapshotContent({ service, snapshotID: id, ...wish }, context);
}
