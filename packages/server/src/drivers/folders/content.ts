/** Content of volumes that are folders, over the streams of what holds the folders. */
import type { ContentAbilities, OpContext, VolumeRecord } from "../../core/driver.js";
import type { FolderStreams, Purpose } from "./backing.js";
import { failureOf } from "./failures.js";

/** The field of a volume that names the content it was made of, where increments can build on that. */
export const CONTENT_FIELD = "contentid";

interface Folders {
  volumePath(id: string): string;
  snapshotPath(id: string): string;
  receive(
    volume: VolumeRecord,
    receive: (to: string, purpose: Purpose) => Promise<void>,
    context: OpContext,
  ): Promise<VolumeRecord>;
}

async function explained(doing: string, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    throw failureOf(error, doing);
  }
}

export function folderContent(streams: FolderStreams, folders: Folders): ContentAbilities {
  const { formats, canReadHeld } = streams;
  return {
    formats,
    canReadHeld,
    ...(streams.kept !== undefined && { kept: () => streams.kept?.() ?? [] }),
    volumeContent: ({ id }, wish, open, context) =>
      explained(`read volume ${id}`, () =>
        streams.send(folders.volumePath(id), "volume", wish, open, context),
      ),
    snapshotContent: ({ id }, wish, open, context) =>
      explained(`read snapshot ${id}`, () =>
        streams.send(folders.snapshotPath(id), "snapshot", wish, open, context),
      ),
    volumeCreateFrom: (volume, content, context) => {
      const { contentID } = content;
      // A copy brings the fields of its source along.
      const { [CONTENT_FIELD]: _other, ...fields } = volume.fields;
      const isKept = contentID !== undefined && streams.kept !== undefined;
      const named = {
        ...volume,
        fields: isKept ? { ...fields, [CONTENT_FIELD]: contentID } : fields,
      };
      return folders.receive(
        named,
        (to, purpose) => streams.receive(to, purpose, content, context),
        context,
      );
    },
  };
}
