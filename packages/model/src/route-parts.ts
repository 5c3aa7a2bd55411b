/** What many routes have in common. */
import * as v from "valibot";

export const read = { method: "GET", status: 200, of: "service" } as const;
export const page = { limit: "count", after: "text" } as const;
export const none = {} as const;
export const Nothing = v.null();
