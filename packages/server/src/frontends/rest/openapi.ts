/** The API as an OpenAPI 3.1 document, made from the route table. */
import { toJsonSchema } from "@valibot/to-json-schema";
import { ErrorBody, HTTP_STATUS, ROUTES, Task } from "@libstorage/model";
import type { Operation, QueryKind, Route } from "@libstorage/model";
import type { GenericSchema } from "valibot";
import { EARLY_VIEWS } from "./early-view.js";

type Json = Record<string, unknown>;

const QUERY_SCHEMA = {
  flag: { type: "boolean", default: false },
  mask: { type: "integer", default: 0, description: "attachments mask, section 7 of the contract" },
  text: { type: "string" },
  count: { type: "integer", minimum: 1 },
} as const satisfies Record<QueryKind, Json>;

function schemaOf(schema: GenericSchema): Json {
  // Checks that JSON Schema cannot say (whole characters, control characters) stand in the docs alone.
  const { $schema: _dialect, ...rest } = toJsonSchema(schema, { errorMode: "ignore" });
  return rest;
}

function json(schema: Json): Json {
  return { "application/json": { schema } };
}

function query(name: string, schema: Json, description?: string): Json {
  return { name, in: "query", schema, ...(description !== undefined && { description }) };
}

function parameters(operation: Operation, route: Route): Json[] {
  const path = [...route.path.matchAll(/:(\w+)/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }));
  const action =
    route.action === undefined
      ? []
      : [
          {
            ...query(
              route.action,
              { type: "string" },
              "selects the action; only its presence counts",
            ),
            required: true,
            allowEmptyValue: true,
          },
        ];
  const own = Object.entries(route.query).map(([name, kind]) => query(name, QUERY_SCHEMA[kind]));
  const async = route.task
    ? [query("async", QUERY_SCHEMA.flag, "answer 202 and the task at once")]
    : [];
  const model =
    EARLY_VIEWS[operation] === undefined
      ? []
      : [query("model", { const: "early" }, "answer under the early model's field names")];
  return [...path, ...action, ...own, ...async, ...model, ...headers(route)];
}

function headers(route: Route): Json[] {
  if (route.of !== "service") return [];
  const header = (name: string, description: string): Json => ({
    name,
    in: "header",
    schema: { type: "string" },
    description,
  });
  const ids = header(
    "Libstorage-Instanceid",
    "DRIVER[:SERVICE]=ID[,FIELDS[,METADATA]], repeatable",
  );
  const tx = header("Libstorage-Tx", "txID=UUID, txCR=SECONDS");
  if (route.method === "GET") return [ids, tx];
  return [ids, tx, header("Idempotency-Key", "a repeat with the same key gets the first answer")];
}

function success(route: Route): Json {
  const { status } = route;
  const hasBody = status !== 204 && route.method !== "HEAD";
  const reply = {
    description: "success",
    ...(hasBody && { content: json(schemaOf(route.reply)) }),
  };
  if (!route.task) return { [status]: reply };
  const task = (description: string): Json => ({ description, content: json(schemaOf(Task)) });
  return { [status]: reply, 202: task("accepted: the task"), 408: task("still at work: the task") };
}

function operationOf(operation: Operation, route: Route): Json {
  return {
    operationId: operation,
    summary: route.about,
    parameters: parameters(operation, route),
    ...(route.body !== undefined && {
      requestBody: { content: json(schemaOf(route.body)) },
    }),
    responses: {
      ...success(route),
      default: {
        description: "an error; the header Libstorage-Errorcode holds its code",
        headers: { "Libstorage-Errorcode": { schema: { enum: Object.keys(HTTP_STATUS) } } },
        content: json(schemaOf(ErrorBody)),
      },
    },
  };
}

/**
 * OpenAPI has no word for actions chosen by a query parameter, so each action is a path of its own, with
 * the parameter written into it: `/volumes/{service}?detach`.
 */
export function openAPI(version: string): Json {
  const paths: Record<string, Json> = {};
  for (const [name, route] of Object.entries(ROUTES) as [Operation, Route][]) {
    const plain = route.path.replace(/:(\w+)/g, "{$1}");
    const path = route.action === undefined ? plain : `${plain}?${route.action}`;
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operationOf(name, route) };
  }
  return {
    openapi: "3.1.0",
    info: { title: "libStorage", version, license: { name: "Apache-2.0" } },
    components: {
      securitySchemes: { token: { type: "http", scheme: "bearer", bearerFormat: "JWT" } },
    },
    security: [{}, { token: [] }],
    paths,
  };
}
