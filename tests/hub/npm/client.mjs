// A round trip with the JavaScript client: create a repo, upload a folder, list it, download it again.
// Environment: HUB (endpoint), TOKEN, REPO, FOLDER (to upload), OUT (to download to). Prints what it saw as JSON.

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
	createBranch,
	createRepo,
	downloadFile,
	listCommits,
	listFiles,
	listModels,
	modelInfo,
	pathsInfo,
	uploadFiles,
	whoAmI,
} from "@huggingface/hub";

const { HUB: hubUrl, TOKEN: accessToken, REPO: repo, FOLDER: folder, OUT: out } = process.env;
const hub = { hubUrl, accessToken };

async function collect(items) {
	const found = [];
	for await (const item of items) {
		found.push(item);
	}
	return found;
}

const names = (await readdir(folder)).sort();
const files = await Promise.all(
	names.map(async (name) => ({ path: name, content: new Blob([await readFile(join(folder, name))]) })),
);

const { id } = await createRepo({ repo, ...hub });
const { commit } = await uploadFiles({ repo, files, commitTitle: "From JavaScript", useXet: false, ...hub });
await createBranch({ repo, branch: "feature/js", ...hub });

const listed = await collect(listFiles({ repo, recursive: true, expand: true, ...hub }));
await mkdir(out, { recursive: true });
for (const name of names) {
	const blob = await downloadFile({ repo, path: name, xet: false, ...hub });
	await writeFile(join(out, name), Buffer.from(await blob.arrayBuffer()));
}

console.log(
	JSON.stringify({
		id,
		commit: commit.oid,
		user: (await whoAmI(hub)).name,
		listed: listed.map((file) => [file.path, file.lfs?.oid ?? null, file.lastCommit.title]),
		missing: await downloadFile({ repo, path: "nothing.txt", ...hub }),
		paths: (await pathsInfo({ repo, paths: names, ...hub })).map((file) => file.path),
		info: (await modelInfo({ name: repo, additionalFields: ["sha", "tags"], ...hub })).sha,
		onBranch: (await collect(listCommits({ repo, revision: encodeURIComponent("feature/js"), ...hub }))).map(
			(commit) => commit.title,
		),
		found: (await collect(listModels({ search: { tags: ["lora"] }, ...hub }))).map((model) => model.name),
	}),
);
