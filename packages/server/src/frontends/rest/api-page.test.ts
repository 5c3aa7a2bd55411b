import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { apiPage } from "./api-page.js";

it("docs/api.md is what the route table says; npm run docs writes it anew", () => {
  const page = new URL("../../../../../docs/api.md", import.meta.url);
  assert.equal(readFileSync(page, "utf8"), apiPage());
});
