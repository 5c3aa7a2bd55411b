/** The routes of the API whose bodies are streams. */
import * as v from "valibot";
import { Volume } from "./types.js";

const stream = {
  method: "GET",
  status: 200,
  of: "content",
  reply: v.unknown(),
  task: false,
} as const;
/** Other contents, by their ids, that the reader has already: an increment of one of them will do. */
const read = { format: "text", have: "text" } as const;
const changes = { since: "text", from: "count" } as const;

export const CONTENT_ROUTES = {
  volumeContent: {
    ...stream,
    path: "/volumes/:service/:volumeID/content",
    query: read,
    about: "What is in a volume that nobody writes, as a stream",
  },
  snapshotContent: {
    ...stream,
    path: "/snapshots/:service/:snapshotID/content",
    query: read,
    about: "What is in a snapshot, as a stream",
  },
  volumeUpload: {
    method: "POST",
    status: 201,
    of: "content",
    path: "/volumes/:service",
    action: "upload",
    query: {
      name: "text",
      format: "text",
      /** GiB. */
      size: "count",
      /** A JSON object. */
      opts: "text",
      contentID: "text",
      parentID: "text",
    },
    reply: Volume,
    task: false,
    about:
      "Create a volume with the content that the body is, in a stated format and with its digest",
  },
  volumeChanges: {
    ...stream,
    path: "/volumes/:service/:volumeID/changes",
    query: changes,
    about: "Where a volume differs from one of its snapshots, a line of JSON for each stretch",
  },
  snapshotChanges: {
    ...stream,
    path: "/snapshots/:service/:snapshotID/changes",
    query: changes,
    about: "Where a snapshot differs from an earlier one, or has data at all",
  },
} as const;
