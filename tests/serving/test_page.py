"""The page at /: its parts come from the server alone; in a real browser it draws, stops, shows
errors, and shows hostile text as text.
"""

import queue
import re
import shutil
import subprocess

import pytest
import torch

pytest.importorskip("fastapi", reason="needs textdiff[serve]")
from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from live import serving, toy

from textdiff.serving.limits import Limits

pytestmark = pytest.mark.filterwarnings("ignore")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

DRIVE = """
const told = {}, wait = (ms) => new Promise((go) => setTimeout(go, ms));
const until = async (what) => { for (let i = 0; i < 400 && !what(); i++) await wait(25); };
const shown = (n) => panes[n].told.textContent;
const cells = (n) => [...panes[n].text.children].map((c) => c.className + ":" + c.textContent);
(async () => {
  await until(() => panes.length);
  told.model = $("model").textContent;
  told.law = panes[0].node.querySelector(".law").textContent;
  told.samplers = [...$("samplers").children].map((one) => one.value);
  told.hidden = panes[1].node.hidden;
  $("two").click();
  $("prompt").value = "the "; $("tokens").value = 12; $("seed").value = 3;
  panes[0].field("hyperschedule").value = "QuenchedAR";
  panes[1].field("hyperschedule").value = "Flat(6)";
  const classes = new Set();
  new MutationObserver(() => cells(1).forEach((c) => classes.add(c.split(":")[0])))
    .observe(panes[1].text, { childList: true, subtree: true, attributes: true });
  $("form").requestSubmit();
  await until(() => shown(0).includes("seed") && shown(1).includes("seed"));
  told.drawn = [0, 1].map((n) => [panes[n].text.textContent, shown(n)]);
  told.classes = [...classes].sort();
  told.given = cells(0).slice(0, 4);
  $("two").click(); $("seed").value = "";
  $("prompt").value = "<img src=x onerror=alert(1)>\\u202e";
  panes[0].field("sampler").value = "Nucleus";
  $("form").requestSubmit();
  await until(() => panes[0].told.classList.contains("bad"));
  told.error = shown(0);
  panes[0].field("sampler").value = "Ancestral";
  $("tokens").value = 400; panes[0].field("hyperschedule").value = "QuenchedAR";
  $("prompt").value = "the ";
  $("form").requestSubmit();
  await until(() => panes[0].drawn > 2);
  dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  await until(() => shown(0).startsWith("stopped"));
  told.stopped = shown(0);
  panes[0].cells = []; panes[0].text.replaceChildren();
  panes[0].put({ position: [0], text: ["<b onclick=x>\\u202e\\u0007"], nfe: 1 }, "settled");
  told.hostile = [panes[0].text.children[0].children.length, panes[0].text.textContent];
  await fetch("told", { method: "POST", body: JSON.stringify(told) });
})().catch((error) => fetch("told", { method: "POST", body: JSON.stringify(String(error.stack)) }));
"""


def test_the_page_needs_nothing_else():
    with serving() as live:
        status, page, headers = live.ask("/")
        assert status == 200 and headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in headers["content-security-policy"]
        links = re.findall(r'(?:src|href)="([^"]*)"', page)
        assert sorted(links) == ["data:,", "page.css", "page.js"]
        for name in ("page.css", "page.js"):
            status, text, _ = live.ask(f"/{name}")
            assert status == 200 and "http://" not in text and "https://" not in text
        ids = set(re.findall(r'id="(\w+)"', page))
        assert set(re.findall(r'\$\("(\w+)"\)', live.ask("/page.js")[1])) <= ids
        labelled = re.findall(r"<(?:input|textarea)[^>]*>", page)
        assert page.count("<label") == len(labelled)  # every field has its name beside it


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: the page is not opened")
def test_the_page_in_a_browser(tmp_path):
    told_to: queue.Queue = queue.Queue()

    def extend(app):
        pages = {r.path: r.endpoint for r in app.routes if isinstance(r, APIRoute)}

        @app.get("/driven")
        async def driven():
            page = (await pages["/"]()).body.decode()
            return HTMLResponse(page.replace("</body>", f"<script>{DRIVE}</script></body>"))

        @app.post("/told")
        async def told(request: Request):
            told_to.put(await request.json())

    model, limits = toy(), Limits(length=512, sequences=4, calls=1024)
    with torch.no_grad():  # it never ends by itself before it is stopped
        model.network.head_parameters()[1][list(model.ends)] = -100.0
    with serving(model, limits, extend=extend) as live:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
        flags += ["--disable-background-networking", "--no-first-run", "--remote-debugging-port=0"]
        browser = subprocess.Popen(
            [BROWSER, *flags, f"{live.url}/driven"], stderr=subprocess.DEVNULL
        )
        try:
            told = told_to.get(timeout=90)
        finally:
            browser.kill()
            browser.wait()
        assert not isinstance(told, str), told
        live.wait_until_idle()
    assert told["model"] == "toy" and told["hidden"] and "Ancestral" in told["samplers"]
    assert "All positions together" in told["law"] and "Law: exactly the model" in told["law"]
    for (text, shown), schedule in zip(told["drawn"], ("QuenchedAR", "Flat(6)"), strict=True):
        alone = model.generate(
            "the ", max_new_tokens=12, seed=3, hyperschedule=schedule, eos_token_id=model.ends
        )
        drawn = "".join(model.decode_token(token) for token in alone.ids[0].tolist())
        assert text == drawn
        count = len(alone.ids[0]) - 4
        assert shown.startswith(f"{count} tokens, {alone.nfe[0]} calls, ")
        assert shown.endswith(" · seed 3")
    assert {"given", "masked", "open", "settled"} <= set(told["classes"])
    assert told["given"] == ["given:t", "given:h", "given:e", "given: "]
    assert "unknown sampler 'Nucleus'" in told["error"]
    assert told["stopped"].startswith("stopped · ")
    assert told["hostile"] == [0, "<b onclick=x>\ufffd\ufffd"]
