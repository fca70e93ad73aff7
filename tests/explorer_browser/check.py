"""The explorer in a browser; see ../explorer_browser.rs. Usage: check.py BASE BROWSER."""

import os
import sys
import time
from importlib import resources
from urllib.parse import urlsplit

from playwright.sync_api import expect, sync_playwright

BASE, BROWSER = sys.argv[1:3]
HOST = urlsplit(BASE).netloc
AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PAGES = ["", "blocks", "block/120", "epochs", "epoch/2", "epoch/3", "nominees", "nominee/12D3KooNew1", "network", "forks",
         "reorganisations", "search?q=120", "search", "nowhere"]
# How long a change may take to be seen, in seconds; on a busy machine, where time says nothing of the pages, PATIENCE.
LIVE = 2.0
PATIENCE = 20.0


def chain(command):
    """Has the test change the chain; returns its answer once that is done."""
    print(f"> {command}", flush=True)
    return sys.stdin.readline().strip()


def opened(browser, **options):
    """A new context, which fails for requests to other hosts and for errors in the page."""
    context = browser.new_context(**options)
    context.set_default_timeout(1000 * PATIENCE)
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text)
            if message.type == "error" and "Failed to load resource" not in message.text
            and "net::ERR" not in message.text else None)
    return context, page, asked, problems


def closed(context, asked, problems):
    context.close()
    foreign = [url for url in asked if urlsplit(url).netloc != HOST and not url.startswith("data:")]
    assert not foreign, foreign
    assert not problems, problems


def grouped(number):
    return f"{int(number):,}".replace(",", "\u202f")


def within(seconds, what, holds):
    """Waits until something holds."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - start


def soon(what, holds):
    """Waits until something holds, and prints how long that took. `make load` alone fails where it was not soon."""
    took = within(PATIENCE, what, holds)
    print(f"browser: {what} is shown after {took:.2f} s")
    assert took < LIVE or "JUDGE_TIMES" not in os.environ, f"{what}: {took:.2f} s"


def shows(page, tip):
    expect(page.locator("#state")).to_contain_text(f"at tip {grouped(tip)}")


def live(page):
    expect(page.locator("#updates")).to_have_attribute("data-state", "live")


def accessible(browser):
    """axe-core on every page, narrow and wide, in both schemes."""
    wrong = []
    for scheme in ["light", "dark"]:
        for width in [320, 1280]:
            context, page, asked, problems = opened(
                browser, color_scheme=scheme, viewport={"width": width, "height": 900})
            for path in PAGES:
                page.goto(f"{BASE}/{path}")
                page.evaluate(AXE)
                found = page.evaluate(
                    "(rules) => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES)
                wrong += [f"/{path} {scheme} {width}: {rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
                          for rule in found["violations"] for node in rule["nodes"]]
                assert len(found["passes"]) > 15, f"/{path}: axe looked at nothing"
                wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                if wide > 0:
                    wrong.append(f"/{path} at {width}: {wide} px too wide")
            closed(context, asked, problems)
    assert not wrong, f"{len(wrong)} problems:\n" + "\n".join(wrong[:20])
    print(f"browser: axe-core found nothing on {len(PAGES)} pages, narrow and wide, light and dark")


def pictures(browser, folder):
    for scheme in ["light", "dark"]:
        for width in [360, 1280]:
            context, page, asked, problems = opened(
                browser, color_scheme=scheme, viewport={"width": width, "height": 900})
            for path in PAGES:
                page.goto(f"{BASE}/{path}")
                name = path.split("?")[0].replace("/", "-") or "home"
                page.screenshot(path=f"{folder}/{name}-{width}-{scheme}.png", full_page=True)
            closed(context, asked, problems)


def without_scripts(browser):
    """Searching, paging and forms without JavaScript."""
    context, page, asked, problems = opened(browser, java_script_enabled=False)
    page.goto(BASE)
    expect(page.locator("#updates")).to_contain_text("This page shows one moment")
    page.get_by_role("searchbox").fill("3")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("main").get_by_role("link", name="3", exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Epoch 3")
    page.get_by_role("link", name="Blocks", exact=True).click()
    first = page.locator("tbody code").first.inner_text()
    page.get_by_role("link", name="Older").click()
    assert page.locator("tbody code").first.inner_text() != first
    page.go_back()
    assert page.locator("tbody code").first.inner_text() == first
    page.get_by_role("link", name="Forks", exact=True).click()
    page.get_by_label("Hide 1-block forks").check()
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_label("Hide 1-block forks")).to_be_checked()
    page.goto(f"{BASE}/?refresh=5")
    before = page.locator("#state").inner_text()
    tip = chain("extend 1")
    shows(page, tip)
    assert page.locator("#state").inner_text() != before
    page.get_by_role("link", name="Stop that").click()
    assert "refresh" not in page.url
    closed(context, asked, problems)
    print("browser: search, paging, forms and refreshing work without JavaScript")


def follows(browser):
    """Home and other pages follow the chain, and stay where the reader is."""
    context, page, asked, problems = opened(browser, viewport={"width": 1280, "height": 500})
    page.goto(BASE)
    live(page)
    loads = [url for url in asked if url.endswith(".css")]
    tip = chain("extend 2")
    newest = lambda: page.locator("tbody tr").first.locator("td a").first.inner_text() == grouped(tip)
    soon("a new block", newest)

    # Scroll, focus and selection stay, whatever comes.
    page.evaluate("scrollTo(0, 400)")
    link = page.locator("tbody tr").nth(3).locator("td a").nth(1)
    href = link.get_attribute("href")
    link.evaluate("link => link.focus({preventScroll: true})")
    page.evaluate("getSelection().selectAllChildren(document.activeElement)")
    hash = page.evaluate("getSelection().toString()")
    tip = chain("extend 1")
    soon("a block after it", newest)
    assert page.evaluate("scrollY") == 400, "the page jumped"
    assert page.evaluate("document.activeElement.getAttribute('href')") == href, "the focus moved"
    assert page.evaluate("getSelection().toString()") == hash, "the selection is gone"

    # A reorganisation of depth 3.
    left = chain("reorganise 3").split(" ")
    assert len(left) == 3
    struck = lambda: all(page.locator("tbody s", has_text=hash).count() == 1 for hash in left)
    soon("a reorganisation of depth 3", struck)
    expect(page.locator("#news")).to_contain_text("3 left the chain, 4 joined")
    expect(page.get_by_role("main")).to_contain_text("3 left the chain, 4 joined")
    assert [url for url in asked if url.endswith(".css")] == loads, "the page was loaded anew"

    # The page of one of its blocks knows it too, and an epoch's.
    page.goto(f"{BASE}/block/{left[1]}")
    expect(page.locator("main .mark").first).to_have_text("✕ orphaned")
    page.goto(f"{BASE}/epoch/3")
    live(page)
    left = chain("reorganise 3").split(" ")
    soon("a reorganisation on the page of an epoch", struck)

    # Times have the local time, and ages count.
    time_element = page.locator("main time").first
    assert "local time" in time_element.get_attribute("title")
    closed(context, asked, problems)


def states(browser):
    """Paused, reconnecting, and back; in the background nothing is asked."""
    other = browser.new_context()
    witness = other.new_page()
    witness.goto(BASE)
    live(witness)
    context, page, asked, problems = opened(browser)
    page.goto(BASE)
    live(page)
    state = page.locator("#updates")
    page.get_by_role("button", name="Pause").click()
    expect(state).to_have_attribute("data-state", "paused")
    shown = page.locator("#state").inner_text()
    asked.clear()
    tip = chain("extend 1")
    shows(witness, tip)
    assert page.locator("#state").inner_text() == shown and not asked, "a paused page stays as it is"
    page.get_by_role("button", name="Resume").click()
    shows(page, tip)
    live(page)

    chain("cut")
    expect(state).to_have_attribute("data-state", "reconnecting")
    expect(state).to_contain_text("reconnecting")
    tip = chain("extend 2")
    chain("mend")
    shows(page, tip)
    shows(witness, tip)
    live(page)
    live(witness)

    # As a browser tells a page that goes to the background and comes back.
    hide = """hidden => {
        Object.defineProperty(document, 'hidden', {configurable: true, value: hidden});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(hide, True)
    asked.clear()
    tip = chain("extend 1")
    shows(witness, tip)
    tip = chain("extend 1")
    shows(witness, tip)
    assert not asked, asked
    page.evaluate(hide, False)
    shows(page, tip)
    other.close()
    closed(context, asked, problems)
    print("browser: pausing, reconnecting and coming back from the background work")


def stops(browser):
    """A page that can't reach the gateway for long gives up, asks for nothing more, and starts again by its button."""
    context, page, asked, problems = opened(browser)
    page.clock.install()
    is_stream = lambda url: urlsplit(url).path.endswith("/events")
    page.route(is_stream, lambda route: route.fulfill(status=404))
    page.goto(BASE)
    state = page.locator("#updates")
    expect(state).to_have_attribute("data-state", "reconnecting")
    page.route(f"{BASE}/", lambda route: route.abort())

    def stopped():
        # The longest pause between two tries.
        page.clock.run_for(60_000)
        return state.get_attribute("data-state") == "stopped"

    within(60, "the end of the tries", stopped)
    expect(state).to_contain_text("stopped")
    tries = len([url for url in asked if is_stream(url)])
    assert tries == 21 and asked.count(f"{BASE}/") > 1, asked
    # What is under way ends.
    page.clock.run_for(60_000)
    asked.clear()
    for _ in range(5):
        page.clock.run_for(60_000)
    assert not asked, f"a page that has stopped asks for {asked}"
    page.unroute(is_stream)
    page.unroute(f"{BASE}/")
    page.get_by_role("button", name="Try again").click()
    live(page)
    shows(page, chain("extend 1"))
    closed(context, asked, problems)
    print(f"browser: a page stops after {tries} tries, and starts again")


def refused(browser):
    """A stream that is refused for now opens, and ends at once, each time: the page never calls that live, and stops."""
    context, page, asked, problems = opened(browser)
    is_stream = lambda url: urlsplit(url).path.endswith("/events")
    page.route(is_stream, lambda route: route.fulfill(status=200, content_type="text/event-stream", body="retry: 10\n\n"))
    page.add_init_script("""addEventListener("DOMContentLoaded", () => {
        window.states = [];
        const updates = document.getElementById("updates");
        new MutationObserver(() => states.push(updates.dataset.state)).observe(updates, {attributes: true});
    });""")
    page.goto(BASE)
    within(20, "the end of the tries", lambda: page.locator("#updates").get_attribute("data-state") == "stopped")
    states = page.evaluate("states")
    assert "reconnecting" in states and "live" not in states, states
    page.unroute(is_stream)
    page.get_by_role("button", name="Try again").click()
    live(page)
    closed(context, asked, problems)
    print("browser: a page whose streams are refused stops, and is not called live")


def by_keyboard(browser):
    """The order of the focus, and that it is seen."""
    context, page, asked, problems = opened(browser, viewport={"width": 360, "height": 800})
    page.goto(BASE)
    focused = lambda: page.evaluate("document.activeElement.innerText || document.activeElement.id")
    order = []
    for _ in range(14):
        page.keyboard.press("Tab")
        order.append(focused().strip())
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", f"the focus on {order[-1]} is not seen"
    expected = ["Skip to the content", "modal-gateway", "Home", "Blocks", "Epochs", "Nominees", "Network", "Forks",
                "Reorganisations", "q", "Search"]
    assert order[:11] == expected, order
    page.reload()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.goto(BASE)
    page.get_by_role("searchbox").focus()
    page.keyboard.type("121")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Search for 121")
    closed(context, asked, problems)
    print("browser: the pages are used by keyboard")


def printed(browser):
    context, page, asked, problems = opened(browser, color_scheme="dark")
    page.goto(f"{BASE}/epoch/2")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.get_by_role("searchbox").is_visible()
    assert page.locator("h1").is_visible()
    closed(context, asked, problems)


expect.set_options(timeout=1000 * PATIENCE)
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=BROWSER, args=[
        "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
    without_scripts(browser)
    follows(browser)
    states(browser)
    stops(browser)
    refused(browser)
    by_keyboard(browser)
    printed(browser)
    if folder := os.environ.get("EXPLORER_SCREENSHOTS"):
        os.makedirs(folder, exist_ok=True)
        pictures(browser, folder)
    accessible(browser)
    browser.close()
